"""A container's packets to tracks: one demuxing pass over every video stream, and the choice of the one to extract."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field

from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from pipeline.errors import DecodeError
from pipeline.video.backend import MOST_PICTURE_PX
from pipeline.video.coding import HeaderReader, header_reader
from pipeline.video.packets import Demuxed

LAST_PACKETS = 40


@dataclass(slots=True)
class Track:
    """What the packets of one stream say; eight bytes a packet."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    """Ticks of the packets that show a picture, in decoding order."""
    flagged_key_pts: array[int] = field(default_factory=lambda: array("q"))
    """Ticks of what the container calls key frames."""
    key_pts: array[int] = field(default_factory=lambda: array("q"))
    """Ticks of what is one by its own headers."""
    key_bytes: array[int] = field(default_factory=lambda: array("q"))
    """Where in the file their packets begin; -1 where that is not known."""
    key_waits: list[tuple[int, int]] = field(default_factory=list)
    """Of the keys whose pictures are whole only later: their tick, and that from which."""
    repeats: array[int] = field(default_factory=lambda: array("q"))
    """Ticks at which the picture before is shown on: there is no picture to come out, and none is missing."""
    last_dts: deque[int] = field(default_factory=lambda: deque(maxlen=LAST_PACKETS))
    """Decoding times of the last packets."""
    packets: int = 0
    without_tick: int = 0
    """Pictures whose packets have no tick."""
    unclear: int = 0
    """Packets of which only decoding tells whether they show a picture."""
    fields: int = 0
    """Second fields that come in packets of their own."""
    droppable: int = 0
    encrypted: bool = False
    _waiting: list[tuple[int, int]] = field(default_factory=list)
    """Keys whose pictures are not whole yet: their tick, and how many reference pictures are to come."""

    def add(self, packet: Packet[VideoStream], headers: HeaderReader) -> None:
        """Take note of the next packet."""
        self.packets += 1
        if self.packets == 1:
            self.encrypted = packet.has_sidedata("encryption_info")
        pts, dts, flagged_key = packet.pts, packet.dts, packet.is_keyframe
        if dts is not None:
            self.last_dts.append(dts)
        coded = headers.read(memoryview(packet), flagged_key)
        self.droppable += coded.droppable
        if flagged_key and pts is not None:
            self.flagged_key_pts.append(pts)
        if coded.key and pts is not None:
            self.key_pts.append(pts)
            self.key_bytes.append(-1 if packet.pos is None else packet.pos)
            if coded.wait:
                self._waiting.append((pts, coded.wait))
        elif self._waiting and coded.picture and pts is not None and not coded.droppable:
            self._wait_less(pts)
        if coded.picture is None:
            self.unclear += 1
        elif not coded.picture:
            self.fields += 1
        elif pts is None:
            self.without_tick += 1
        elif not packet.is_discard:
            self.pts.append(pts)

    def _wait_less(self, pts: int) -> None:
        waiting = [(key, left - 1) for key, left in self._waiting]
        self.key_waits += [(key, pts) for key, left in waiting if not left]
        self._waiting = [(key, left) for key, left in waiting if left]

    def unfinished_keys(self) -> set[int]:
        """Keys whose pictures are never whole before the stream ends."""
        return {key for key, _ in self._waiting}


def read_tracks(container: InputContainer) -> tuple[dict[int, Track], Demuxed]:
    """Demux once.

    Returns:
        The packets of every video stream, by stream index, and how the reading went.
    """
    streams = list(container.streams.video)
    tracks = {stream.index: Track() for stream in streams}
    demuxed = Demuxed(container, streams)
    if not streams:
        return tracks, demuxed
    headers = {stream.index: _headers(stream) for stream in streams}
    for packet in demuxed.packets:
        tracks[packet.stream_index].add(packet, headers[packet.stream_index])
    for index, tick in demuxed.repeats:
        tracks[index].repeats.append(tick)
    return tracks, demuxed


def _headers(stream: VideoStream) -> HeaderReader:
    # The stub does not say so, but a stream without a decoder has no context.
    context = stream.codec_context
    return header_reader(*((context.codec.canonical_name, context.extradata) if context else ("", None)))


def choose_stream(container: InputContainer, tracks: dict[int, Track], uri: str) -> tuple[VideoStream, tuple[str, ...]]:
    """Choose as the ffmpeg command does: no cover picture, then packets, then the default stream, then most pixels.

    Returns:
        The stream, and a warning that names it where there are several.

    Raises:
        DecodeError: there is no video stream, or none with a decoder (`unsupported`).
    """
    streams = list(container.streams.video)
    if not streams:
        raise DecodeError("unsupported", f"{uri}: no video stream")
    decodable = [stream for stream in streams if stream.codec_context]
    if not decodable:
        raise DecodeError("unsupported", f"{uri}: this build of FFmpeg has no decoder for the video stream")

    def rank(stream: VideoStream) -> tuple[bool, int]:
        cover = bool(stream.disposition & Disposition.attached_pic)
        score = stream.codec_context.width * stream.codec_context.height
        score += 100_000_000 * bool(tracks[stream.index].packets)
        return not cover, score + 5_000_000 * bool(stream.disposition & Disposition.default)

    chosen = max(decodable, key=rank)
    context = chosen.codec_context
    if context.width * context.height > MOST_PICTURE_PX:
        raise DecodeError(
            "unsupported",
            f"{uri}: pictures of {context.width}x{context.height} pixels: at most {MOST_PICTURE_PX} are decoded,"
            " scale it down first",
        )
    if len(streams) == 1:
        return chosen, ()
    size = f"{chosen.codec_context.width}x{chosen.codec_context.height}"
    return chosen, (f"{len(streams)} video streams: took stream {chosen.index} ({size})",)
