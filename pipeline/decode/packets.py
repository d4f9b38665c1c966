"""The packets of one video stream, in decoding order, from any key frame on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Literal, cast

import av.error
from av import VideoFrame
from av.codec.context import Flags2, ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.decode.byte_source import open_container
from pipeline.decode.failures import decode_errors, failure_class
from pipeline.progress import made_progress

Skipping = Literal["NONREF", "DEFAULT"]
MAX_READ_ERRORS = 64
"""Damaged stretches of a container that are stepped over before its rest is given up."""
BACK_OFF_S = (0, 1, 2, 4, 8, 16)


def read_packets(container: InputContainer, streams: Sequence[VideoStream]) -> Iterator[Packet[VideoStream]]:
    """Demux from the current position to the end, stepping over damage that the container can resume after."""
    for _ in range(MAX_READ_ERRORS):
        try:
            for packet in container.demux(*streams):
                made_progress()
                # Empty packets at the end ask for a drain, which is done elsewhere.
                if packet.size or packet.dts is not None:
                    yield cast("Packet[VideoStream]", packet)
            return
        except av.error.FFmpegError as error:
            if failure_class(error) in ("io", "out_of_memory"):
                raise


def use_one_thread(context: VideoCodecContext) -> None:
    """More workers use the cores better than more threads, and one thread cannot deadlock with another."""
    context.thread_type = ThreadType.NONE
    context.thread_count = 1


class OpenStream:
    """One stream of an open file: a place to read from, and a decoder.

    Args:
        uri: the file or object.
        stream_index: of a video stream in it.
        vectors: whether frames carry the codec's motion vectors.

    Raises:
        DecodeError: the file cannot be opened any more (all methods).
    """

    def __init__(self, uri: str, stream_index: int, *, vectors: bool = False) -> None:
        self.uri = uri
        self.skipping: Skipping = "DEFAULT"
        """What the decoder leaves out at present."""
        self._index = stream_index
        self._vectors = vectors
        self._closing = ExitStack()
        self._open()

    def _open(self) -> None:
        self._container = self._closing.enter_context(open_container(self.uri))
        stream = self._container.streams[self._index]
        assert isinstance(stream, VideoStream)
        self._stream = stream
        use_one_thread(stream.codec_context)
        if self._vectors:
            stream.codec_context.flags2 |= Flags2.export_mvs
        self.skipping = "DEFAULT"
        self._restart()

    def _restart(self) -> None:
        self._packets = read_packets(self._container, [self._stream])
        self._pushed: Packet[VideoStream] | None = None
        self.key_pts: int | None = None
        """Tick of the last key frame read; None before the first."""

    def close(self) -> None:
        """Release the file and the decoder."""
        self._closing.close()

    @property
    def context(self) -> VideoCodecContext:
        """The decoder."""
        return self._stream.codec_context

    @property
    def ticks_per_s(self) -> int:
        """Ticks of the stream's time base in a second, rounded down."""
        return int(1 / self._stream.time_base) if self._stream.time_base else 1

    def skip_nonreference(self, skip: bool) -> None:
        """Leave out, or take in, pictures that no other refers to; holds for the packets decoded next."""
        value: Skipping = "NONREF" if skip else "DEFAULT"
        if self.skipping != value:
            self.context.skip_frame = value
            self.skipping = value

    def read(self) -> Packet[VideoStream] | None:
        """The next packet; None at the end."""
        with decode_errors(self.uri):
            packet = self._pushed or next(self._packets, None)
        self._pushed = None
        if packet is not None and packet.is_keyframe and packet.pts is not None:
            self.key_pts = packet.pts
        return packet

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Decode one packet; None drains the decoder and makes it ready for another start.

        Raises:
            av.error.FFmpegError: the packet is damaged; decoding can go on with the next.
        """
        if packet is not None:
            return self.context.decode(packet)
        frames: list[VideoFrame] = []
        try:
            frames = self.context.decode(None)
        finally:
            self.context.flush_buffers()
        return frames

    def rewind(self) -> None:
        """Go to the first packet of the file."""
        first = self._stream.start_time or 0
        self._seek(min(first, 0) - self.ticks_per_s)

    def forward_to(self, key_pts: int) -> bool:
        """Drop packets until the next one is the key frame at `key_pts`; False where it was missed."""
        while (packet := self.read()) is not None:
            if packet.is_keyframe and packet.pts is not None and packet.pts >= key_pts:
                self._pushed = packet
                return packet.pts == key_pts
        return False

    def seek_to(self, key_pts: int) -> bool:
        """Put the key frame at `key_pts` next, seeking further back while the container overshoots.

        Containers without an index (MPEG-TS) and those whose index holds decoding times land anywhere near.
        """
        for back_s in BACK_OFF_S:
            self._seek(key_pts - back_s * self.ticks_per_s)
            if self.forward_to(key_pts):
                return True
        self.rewind()
        return self.forward_to(key_pts)

    def _seek(self, pts: int) -> None:
        try:
            self._container.seek(pts, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            # A container that cannot seek is read from its start again.
            self._closing.close()
            self._open()
        self._restart()
