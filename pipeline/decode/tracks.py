"""A container's packets to tracks: one demuxing pass over every video stream, and the choice of the one to extract."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from pipeline.decode.bitstream import shows_picture, starts_decoding
from pipeline.decode.packets import read_packets
from pipeline.errors import DecodeError


@dataclass(slots=True)
class Track:
    """What the packets of one stream say; eight bytes a packet."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    """Ticks of the packets that show a picture, in decoding order."""
    flagged_key_pts: array[int] = field(default_factory=lambda: array("q"))
    """Ticks of what the container calls key frames."""
    key_pts: array[int] = field(default_factory=lambda: array("q"))
    """Those of them that are."""
    packets: int = 0
    uncertain: int = 0
    """Packets without a tick, or of which only decoding tells whether they show a picture."""
    encrypted: bool = False

    def add(self, packet: Packet[VideoStream], codec: str, extradata: bytes | None) -> None:
        """Take note of the next packet."""
        self.packets += 1
        if self.packets == 1:
            self.encrypted = packet.has_sidedata("encryption_info")
        if packet.is_keyframe and packet.pts is not None:
            self.flagged_key_pts.append(packet.pts)
            if starts_decoding(codec, packet, extradata):
                self.key_pts.append(packet.pts)
        shows = shows_picture(codec, packet)
        if shows is None or packet.pts is None:
            self.uncertain += 1
        elif shows and not packet.is_discard:
            self.pts.append(packet.pts)


def read_tracks(container: InputContainer) -> dict[int, Track]:
    """Demux once; the packets of every video stream, by stream index."""
    streams = list(container.streams.video)
    tracks = {stream.index: Track() for stream in streams}
    if not streams:
        return tracks
    coding = {stream.index: _coding(stream) for stream in streams}
    for packet in read_packets(container, streams):
        tracks[packet.stream_index].add(packet, *coding[packet.stream_index])
    return tracks


def _coding(stream: VideoStream) -> tuple[str, bytes | None]:
    # The stub does not say so, but a stream without a decoder has no context.
    context = stream.codec_context
    return (context.codec.canonical_name, context.extradata) if context else ("", None)


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
    if len(streams) == 1:
        return chosen, ()
    size = f"{chosen.codec_context.width}x{chosen.codec_context.height}"
    return chosen, (f"{len(streams)} video streams: took stream {chosen.index} ({size})",)
