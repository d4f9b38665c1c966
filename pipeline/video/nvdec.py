"""NVDEC, the decoder on NVIDIA GPUs, through libavcodec: packets and ticks are those of the cursor.

Pictures come as NV12 in the computer's memory. Decoding is defined to the bit for every codec that it has, so they hold
the same values as libavcodec's own.
"""

from __future__ import annotations

import av
import av.error
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.errors import DecodeError
from pipeline.video.backend import Answer, decode_packet

CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4"})


class NvdecBackend:
    """NVDEC for one stream.

    Args:
        stream: whose packets are to come.

    Raises:
        DecodeError: the codec is none of NVDEC's, or there is no GPU that decodes it (`unsupported`).
    """

    def __init__(self, stream: VideoStream) -> None:
        codec = stream.codec_context.codec.canonical_name
        if codec not in CODECS:
            raise DecodeError("unsupported", f"NVDEC has no {codec}: decode it on the cores")
        name = f"{codec.removesuffix('video')}_cuvid"
        try:
            context = av.codec.CodecContext.create(name, "r")
            assert isinstance(context, VideoCodecContext)
            if stream.codec_context.extradata:
                context.extradata = stream.codec_context.extradata
            context.width, context.height = stream.codec_context.width, stream.codec_context.height
            context.open()
        except (av.error.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise DecodeError("unsupported", f"NVDEC cannot be used here ({reason}): decode on the cores") from error
        self._context = context

    def send(self, packet: Packet[VideoStream]) -> Answer:
        """Decode one packet."""
        return decode_packet(self._context, packet)

    def drain(self) -> Answer:
        """What is still held back; then ready for another start."""
        answer = decode_packet(self._context, None)
        self._context.flush_buffers()
        return answer

    def flush(self) -> None:
        """Forget everything."""
        self._context.flush_buffers()
