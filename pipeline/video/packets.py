"""The packets of one video stream in decoding order, each with what its headers say, from any key frame on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.stream import VideoStream

from pipeline.progress import made_progress
from pipeline.video.coding import Coded, header_reader
from pipeline.video.container import open_container
from pipeline.video.failures import decode_errors, failure_class
from pipeline.video.places import place_before, reading_pays_within_ticks
from pipeline.video.ranges import LEAST_BYTES

MAX_ERRORS_IN_A_ROW = 64
"""Damaged stretches of a container without a packet between them, after which its rest is given up."""
BACK_OFF_S = (0, 1, 2, 4, 8, 16)


def is_repeat(packet: Packet[Any]) -> bool:
    """Whether an empty packet is one of Theora, by which it repeats the last frame.

    libavcodec would take it for the end of the stream. In other codecs an empty packet is a lost one.
    """
    context = packet.stream.codec_context
    return context is not None and context.name == "theora"


@dataclass(slots=True)
class Demuxed:
    """Packets from the current position to the end, stepping over damage that the container can resume after."""

    container: InputContainer
    streams: Sequence[VideoStream]
    errors: int = 0
    """Damaged stretches met so far."""
    given_up: bool = False
    """Whether the rest was given up: what follows is unknown, and no end of the file."""
    repeats: list[tuple[int, int]] = field(default_factory=list)
    """Stream and tick of packets that show the picture before them again."""
    packets: Iterator[Packet[VideoStream]] = field(init=False)

    def __post_init__(self) -> None:
        self.packets = self._demux()

    def _demux(self) -> Iterator[Packet[VideoStream]]:
        in_a_row = 0
        while in_a_row < MAX_ERRORS_IN_A_ROW:
            try:
                for packet in self.container.demux(*self.streams):
                    made_progress()
                    in_a_row = 0
                    # Empty packets at the end ask for a drain, which is done elsewhere.
                    if packet.size:
                        yield cast("Packet[VideoStream]", packet)
                    elif packet.pts is not None and is_repeat(packet):
                        self.repeats.append((packet.stream_index, packet.pts))
                    elif packet.dts is not None:
                        yield cast("Packet[VideoStream]", packet)
                return
            # PyAV fails so over streams that turn up, or turn out to be none, while a damaged file is read.
            except (av.error.FFmpegError, IndexError) as error:
                if failure_class(error) in ("io", "out_of_memory"):
                    raise
                self.errors += 1
                in_a_row += 1
        self.given_up = True


class StreamPacket(NamedTuple):
    """One packet, and what is known of it before it is decoded."""

    packet: Packet[VideoStream]
    tick: int | None
    """When its picture is shown; that of the first field for a second one."""
    coded: Coded
    damaged: bool
    """Whether the container or the headers say so."""


class PacketSource:
    """A place to read the packets of one stream from.

    Args:
        uri: the file or object.
        stream_index: of a video stream in it.
        places: ticks of key frames and where in the file they begin, increasing, where a scan has kept any.
        span_ticks: about how long the stream is; 0 where that is not known.

    Raises:
        DecodeError: the file cannot be opened or read any more (all methods).
    """

    def __init__(
        self, uri: str, stream_index: int, places: Sequence[tuple[int, int]] = (), span_ticks: int = 0
    ) -> None:
        self.uri = uri
        self._index, self._span_ticks = stream_index, span_ticks
        self.places = places
        """Empty from when one of them was found to be wrong."""
        self._seek_bytes = LEAST_BYTES
        """What the last seek fetched over a network."""
        self._closing = ExitStack()
        self._open()

    def _open(self) -> None:
        opened = self._closing.enter_context(open_container(self.uri))
        self._container, self._file = opened.container, opened.file
        stream = self._container.streams[self._index]
        assert isinstance(stream, VideoStream)
        self.stream = stream
        for other in self._container.streams:
            if other.index != self._index:
                other.discard = Discard.all
        context = stream.codec_context
        self.codec = context.codec.canonical_name
        self._headers = header_reader(self.codec, context.extradata)
        self._has_moved = False
        """Whether the place is another than right after opening."""
        self._restart()

    def _restart(self) -> None:
        self._packets = self._demux()
        self._headers.restart()
        self._pushed: Packet[VideoStream] | None = None
        self._tick: int | None = None
        self.key_tick: int | None = None
        """Tick of the last key frame read; None before the first."""

    def close(self) -> None:
        """Release the file."""
        self._closing.close()

    @property
    def ticks_per_s(self) -> int:
        """Ticks of the stream's time base in a second, rounded down."""
        return int(1 / self.stream.time_base) if self.stream.time_base else 1

    @property
    def reading_is_nearer_than(self) -> int:
        """Ticks from key frame to key frame below which reading on is cheaper than to seek."""
        if self._file is None:
            return reading_pays_within_ticks(self.ticks_per_s, seek_bytes=None)
        bytes_per_tick = self._file.size_bytes / max(self._span_ticks, 1)
        return reading_pays_within_ticks(self.ticks_per_s, seek_bytes=self._seek_bytes, bytes_per_tick=bytes_per_tick)

    def read(self) -> StreamPacket | None:
        """The next packet; None at the end."""
        packet = self._next()
        return None if packet is None else self._understood(packet)

    def rewind(self) -> None:
        """Go to the first packet of the file.

        The file is opened again: what a container gives with its first packet alone (a palette) is lost by seeking.
        """
        if self._has_moved:
            self._reopen()

    def forward_to(self, key_tick: int) -> bool:
        """Drop packets until the next one is the key frame at `key_tick`; False where it was missed."""
        self._headers.restart()
        while (packet := self._next()) is not None:
            pts = packet.pts
            # Headers of what is shown before it are not looked into: most packets that are passed over are.
            if pts is not None and pts >= key_tick and self._understood(packet).coded.key:
                self._pushed = packet
                # What lies before it is not decoded, and so not missing.
                self._headers.restart()
                return pts == key_tick
        return False

    def seek_to(self, key_tick: int) -> bool:
        """Put the key frame at `key_tick` next: by its place, where that is known, else by the container's means."""
        before = self._file.fetched_bytes if self._file else 0
        found = self._go_by_place(key_tick) or self._go_by_tick(key_tick)
        self._seek_bytes = self._file.fetched_bytes - before if self._file else 0
        return found

    def _go_by_place(self, key_tick: int) -> bool:
        place = place_before(self.places, key_tick)
        if place is None:
            return False
        tick, byte = place
        try:
            self._container.seek(byte, unsupported_byte_offset=True)
        except av.error.FFmpegError:
            self.places = ()
            return False
        self._has_moved = True
        self._restart()
        packet = self._next()
        if packet is None or packet.pts != tick:
            # Not what the scan has seen there.
            self.places = ()
            return False
        self._pushed = packet
        return self.forward_to(key_tick)

    def _go_by_tick(self, key_tick: int) -> bool:
        """Seek further back while the container overshoots, as those do that search or index decoding times."""
        for back_s in BACK_OFF_S:
            self._seek(key_tick - back_s * self.ticks_per_s)
            if self.forward_to(key_tick):
                return True
        self.rewind()
        return self.forward_to(key_tick)

    def _demux(self) -> Iterator[Packet[VideoStream]]:
        with decode_errors(self.uri):
            yield from Demuxed(self._container, [self.stream]).packets

    def _next(self) -> Packet[VideoStream] | None:
        if self._pushed is not None:
            packet, self._pushed = self._pushed, None
            return packet
        self._has_moved = True
        return next(self._packets, None)

    def _understood(self, packet: Packet[VideoStream]) -> StreamPacket:
        coded = self._headers.read(memoryview(packet), packet.is_keyframe)
        # A second field, or its lack of a tick, belongs to the picture that the first one began.
        if coded.picture is not False or self.codec != "h264":
            self._tick = packet.pts
        if coded.key and self._tick is not None:
            self.key_tick = self._tick
        return StreamPacket(packet, self._tick, coded, packet.is_corrupt or not coded.intact or coded.gap)

    def _seek(self, pts: int) -> None:
        try:
            self._container.seek(pts, stream=self.stream, backward=True)
            self._has_moved = True
        except av.error.FFmpegError:
            # A container that cannot seek is read from its start again.
            self._reopen()
        self._restart()

    def _reopen(self) -> None:
        self._closing.close()
        self._open()
