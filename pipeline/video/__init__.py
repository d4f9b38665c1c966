"""Videos to frames: what a file holds, and the frames of its clips at the encoder's size. Only this imports av."""

from pipeline.video.decoder import OpenVideo, open_video
from pipeline.video.index import VideoIndex, index_of, is_one_piece, read_index, timing_of, unit_timing
from pipeline.video.scan import scan_video

__all__ = [
    "OpenVideo",
    "VideoIndex",
    "index_of",
    "is_one_piece",
    "open_video",
    "read_index",
    "scan_video",
    "timing_of",
    "unit_timing",
]
