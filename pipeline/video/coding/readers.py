"""The header reader of each codec."""

from __future__ import annotations

from pipeline.video.coding.av1 import Av1Headers
from pipeline.video.coding.facts import HeaderReader, NoHeaders
from pipeline.video.coding.h264 import H264Headers
from pipeline.video.coding.hevc import HevcHeaders
from pipeline.video.coding.mpeg import H263Headers, Mpeg4Headers, MpegVideoHeaders, TwoBitTypeHeaders
from pipeline.video.coding.vpx import Vp8Headers, Vp9Headers

TWO_BIT_TYPE_CODECS = frozenset({"msmpeg4v2", "msmpeg4v3", "wmv1"})


def header_reader(codec: str, extradata: bytes | None) -> HeaderReader:
    """What reads the packets of a stream.

    Args:
        codec: libavcodec's name of the format, such as `h264`.
        extradata: the stream's headers, as the container holds them.
    """
    if codec == "h264":
        return H264Headers(extradata)
    if codec == "hevc":
        return HevcHeaders(extradata)
    if codec == "vp8":
        return Vp8Headers()
    if codec == "vp9":
        return Vp9Headers()
    if codec == "av1":
        return Av1Headers(extradata)
    if codec in ("mpeg1video", "mpeg2video"):
        return MpegVideoHeaders()
    if codec == "mpeg4":
        return Mpeg4Headers(extradata)
    if codec == "h263":
        return H263Headers()
    if codec in TWO_BIT_TYPE_CODECS:
        return TwoBitTypeHeaders()
    return NoHeaders()
