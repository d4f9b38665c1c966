"""What turns packets into pictures: one small protocol, and libavcodec behind it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol, cast

import av
import av.error
import av.logging
from av import VideoFrame
from av.codec.context import Flags2, ThreadType
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.video.coding.vpx import superframe
from pipeline.video.failures import failure_class

# What libavcodec notices of damage it often says in its log alone. PyAV would print it.
av.logging.set_level(av.logging.INFO)
# Else a message that comes again is held back, and turns up with a later packet, even of another stream.
av.logging.set_skip_repeated(False)
_log = logging.getLogger("libav")
_log.addHandler(logging.NullHandler())
_log.propagate = False

CONCEALED = "concealing"
HARMLESS = ("mmco:", "co located POCs", "number of reference frames", "Late SEI", "Application has requested")
"""Errors in the log of healthy streams that are begun at a recovery point."""
MOST_PICTURE_PX = 1 << 26
"""Of one picture, twice 8K: a file of some kilobytes may claim sizes that take gigabytes to show."""
LIBVPX_FORMATS = frozenset({"yuv420p", "yuv422p", "yuv440p", "yuv444p", "gbrp"})


@dataclass(slots=True)
class Answer:
    """What came of a packet."""

    frames: list[VideoFrame]
    damaged: bool
    """Whether the decoder noticed anything wrong with the packet."""


class Backend(Protocol):
    """Takes packets of one stream in decoding order, from a key frame on, and gives pictures in display order.

    Each picture carries the tick of the packet that it came in.
    """

    def send(self, packet: Packet[VideoStream]) -> Answer:
        """Decode one packet."""

    def drain(self) -> Answer:
        """What is still held back; then ready for another start."""

    def flush(self) -> None:
        """Forget everything: the next packet is a key frame."""


def use_one_thread(context: VideoCodecContext) -> None:
    """More workers use the cores better than more threads, and one thread cannot deadlock with another."""
    context.thread_type = ThreadType.NONE
    context.thread_count = 1


class LibavBackend:
    """libavcodec on one thread.

    Args:
        stream: whose packets are to come.
        strict: notice as much damage as can be, though a noticed packet may give no picture; else show what there is.
        vectors: whether frames carry the codec's motion vectors.
    """

    def __init__(self, stream: VideoStream, *, strict: bool = True, vectors: bool = False) -> None:
        context = stream.codec_context
        codec = context.codec.canonical_name
        options = {"max_pixels": str(MOST_PICTURE_PX)}
        self._splits = False
        if codec == "vp9" and strict and context.pix_fmt in LIBVPX_FORMATS:
            # libvpx notices a flipped bit where libavcodec's own decoder shows whatever comes of it.
            context = _context("libvpx-vp9", stream)
            self._splits = True
        elif codec == "av1" and strict:
            context = _context(context.codec.name, stream)
            # So does dav1d where it checks the padding after a tile's last symbol.
            options["strict"] = "1"
        elif codec == "h264" and strict:
            # Without it, data of a CAVLC slice that end too late are passed over.
            options["err_detect"] = "aggressive"
        elif codec == "hevc":
            # Few streams carry hashes of their pictures; of those, every one is checked.
            options["err_detect"] = "crccheck"
        context.options = options
        if vectors:
            context.flags2 |= Flags2.export_mvs
        use_one_thread(context)
        self._context = context

    def send(self, packet: Packet[VideoStream]) -> Answer:
        """Decode one packet.

        Raises:
            MemoryError: there is none left.
        """
        if not self._splits or len(frames := superframe(memoryview(packet)) or ()) < 2:
            return decode_packet(self._context, packet)
        # Only of a frame by itself does libvpx notice that its data did not end where it should.
        answer = Answer([], damaged=False)
        for data in frames:
            part = cast("Packet[VideoStream]", Packet(bytes(data)))
            part.pts, part.dts, part.time_base = packet.pts, packet.dts, packet.time_base
            came = decode_packet(self._context, part)
            answer = Answer([*answer.frames, *came.frames], answer.damaged or came.damaged)
        return answer

    def drain(self) -> Answer:
        """What is still held back; then ready for another start."""
        answer = decode_packet(self._context, None)
        self._context.flush_buffers()
        return answer

    def flush(self) -> None:
        """Forget everything."""
        self._context.flush_buffers()


def decode_packet(
    context: VideoCodecContext, packet: Packet[VideoStream] | None, harmless: tuple[str, ...] = HARMLESS
) -> Answer:
    """Decode one packet, or (None) put out what is held back; and hear what the decoder says of it in its log.

    Args:
        context: the decoder.
        packet: for it.
        harmless: words of errors in its log that mean no damage.

    Raises:
        MemoryError: there is none left.
    """
    with av.logging.Capture(local=True) as messages:
        try:
            frames = context.decode(packet)
        except av.error.FFmpegError as error:
            if failure_class(error) == "out_of_memory":
                raise
            return Answer([], damaged=not isinstance(error, av.error.EOFError))
    return Answer(frames, damaged=bool(messages) and any(is_bad(level, text, harmless) for level, _, text in messages))


def is_bad(level: int, text: str, harmless: tuple[str, ...]) -> bool:
    """Whether a line of the decoder's log tells of damage."""
    if level > av.logging.ERROR:
        return CONCEALED in text
    return not any(words in text for words in harmless)


def _context(name: str, stream: VideoStream) -> VideoCodecContext:
    """A decoder beside the stream's own."""
    context = av.codec.CodecContext.create(name, "r")
    assert isinstance(context, VideoCodecContext)
    if stream.codec_context.extradata:
        context.extradata = stream.codec_context.extradata
    return context


def has_two_decoders(stream: VideoStream) -> bool:
    """Whether what notices damage best is another decoder than what shows it best."""
    return stream.codec_context.codec.canonical_name in ("vp9", "av1")
