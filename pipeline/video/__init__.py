"""Videos to frames: what a file holds, and the frames of its clips at the encoder's size. Only this imports av."""

from pipeline.video.decoder import OpenVideo, open_video
from pipeline.video.index import is_one_piece, pack_info, timing_of, unpack_info
from pipeline.video.nvdec import gpu_of_nvdec
from pipeline.video.scan import scan_video

__all__ = [
    "OpenVideo",
    "gpu_of_nvdec",
    "is_one_piece",
    "open_video",
    "pack_info",
    "scan_video",
    "timing_of",
    "unpack_info",
]
