"""Videos to frames: what a file holds, and the frames of its clips at the encoder's size. Only this imports av."""

from pipeline.decode.reader import OpenVideo, open_video
from pipeline.decode.scan import scan_video
from pipeline.decode.timing import timing_of

__all__ = ["OpenVideo", "open_video", "scan_video", "timing_of"]
