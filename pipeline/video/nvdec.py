"""NVDEC, the decoder on NVIDIA GPUs, through libavcodec: its packets, its headers, its ticks and its order of pictures.

libavcodec reads the headers and NVDEC the coded data, whose decoding is defined to the bit in the codecs named here. So
its pictures hold the same values as libavcodec's own; they stay on the device, as NV12 or, of 10 bits, as P010. Where a
GPU turns a stream down (too small, too large, a profile that it lacks), libavcodec decodes it on the CPU by itself.
"""

from __future__ import annotations

from collections.abc import Collection

import av
import av.error
import torch
from av import VideoFrame
from av.codec.hwaccel import HWAccel
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.errors import DecodeError, SettingsError
from pipeline.video.backend import HARMLESS, MOST_PICTURE_PX, Answer, decode_packet, use_one_thread

CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1"})
TURNED_DOWN = (
    "Hardware is lacking required capabilities",
    "not within range from",
    "Video macroblock count",
    "Failed setup for format",
)
"""Errors in libavcodec's log where a GPU turns a stream down; its own decoder then takes over."""
PIXEL_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuv420p10le"})
AV1_CAPABILITY = 8, 6
"""Least compute capability with AV1; libavcodec's own AV1 decoder has nothing to fall back to."""


def gpu_of_nvdec() -> torch.device:
    """The GPU of this process that decodes, its context made.

    Raises:
        SettingsError: there is none, or PyAV cannot leave pictures on it.
    """
    advice = "leave out --decoder nvdec"
    if not torch.cuda.is_available():
        raise SettingsError(f"--decoder nvdec needs an NVIDIA GPU, and there is none that torch can use: {advice}")
    if not hasattr(VideoFrame, "sw_format"):
        raise SettingsError(f"--decoder nvdec needs PyAV 18 or later; this is {av.__version__}: update it, or {advice}")
    gpu = torch.device("cuda", 0)
    try:
        _context("h264", gpu)
        torch.empty(1, device=gpu)
    except (av.error.FFmpegError, OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        raise SettingsError(f"--decoder nvdec: the GPU cannot be used ({reason}): {advice}") from error
    return gpu


def decodes(codec: str, pixel_format: str | None, size_px: tuple[int, int], capability: tuple[int, int]) -> bool:
    """Whether NVDEC is given a stream; libavcodec decodes all others on the CPU.

    Args:
        codec: libavcodec's name of it.
        pixel_format: of its pictures.
        size_px: their width and height. Of an odd one DLPack leaves out the last chroma value.
        capability: compute capability of the GPU.
    """
    if codec == "av1" and capability < AV1_CAPABILITY:
        return False
    return codec in CODECS and pixel_format in PIXEL_FORMATS and not any(side % 2 for side in size_px)


def is_for_nvdec(stream: VideoStream, device: torch.device) -> bool:
    """Whether a stream is decoded on `device`."""
    if device.type != "cuda":
        return False
    context, capability = stream.codec_context, torch.cuda.get_device_capability(device)
    return decodes(context.codec.canonical_name, context.pix_fmt, (context.width, context.height), capability)


def check_size(size_px: tuple[int, int], known_px: Collection[tuple[int, int]]) -> None:
    """Refuse a picture that has more columns or rows than are to be shown.

    libavcodec cuts off what lies to the right and below of a picture on a GPU, and leaves what lies to the left and
    above.

    Args:
        size_px: width and height of a picture that came out.
        known_px: those that the stream's headers have named.

    Raises:
        DecodeError: it is none of them (`unsupported`).
    """
    if size_px not in known_px:
        (width, height), wanted = size_px, " or ".join(f"{w}x{h}" for w, h in sorted(known_px))
        raise DecodeError(
            "unsupported", f"NVDEC gives pictures of {width}x{height} instead of {wanted}: use --decoder libav"
        )


class NvdecBackend:
    """NVDEC for one stream.

    Args:
        stream: whose packets are to come.
        gpu: the device that decodes, and on which pictures stay.
    """

    def __init__(self, stream: VideoStream, gpu: torch.device) -> None:
        context = _context(stream.codec_context.codec.canonical_name, gpu)
        if stream.codec_context.extradata:
            context.extradata = stream.codec_context.extradata
        context.options = {"max_pixels": str(MOST_PICTURE_PX)}
        use_one_thread(context)
        self._context = context
        self._sizes_px = {(stream.codec_context.width, stream.codec_context.height)}
        """All that the headers have named so far; pictures come out later than their headers."""

    def send(self, packet: Packet[VideoStream]) -> Answer:
        """Decode one packet.

        Raises:
            MemoryError: there is none left.
            DecodeError: a picture is not the part of it that is to be shown (`unsupported`).
        """
        return self._checked(decode_packet(self._context, packet, (*HARMLESS, *TURNED_DOWN)))

    def drain(self) -> Answer:
        """What is still held back; then ready for another start."""
        answer = self._checked(decode_packet(self._context, None))
        self._context.flush_buffers()
        return answer

    def _checked(self, answer: Answer) -> Answer:
        self._sizes_px.add((self._context.width, self._context.height))
        for frame in answer.frames:
            check_size((frame.width, frame.height), self._sizes_px)
        return answer

    def flush(self) -> None:
        """Forget everything."""
        self._context.flush_buffers()


def _context(codec: str, gpu: torch.device) -> VideoCodecContext:
    """The decoder of libavcodec itself with NVDEC behind it, in the CUDA context that torch uses."""
    accelerator = HWAccel("cuda", device=str(gpu.index or 0), allow_software_fallback=True, is_hw_owned=True)
    context = av.codec.CodecContext.create(codec, "r", accelerator)
    assert isinstance(context, VideoCodecContext)
    return context
