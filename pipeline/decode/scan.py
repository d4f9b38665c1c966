"""A video source to what it holds: one pass over the packets, and the decoding of its first frame."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av.error
import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.decode.bitstream import has_one_temporal_layer, shows_picture, starts_decoding
from pipeline.decode.byte_source import open_container
from pipeline.decode.failures import decode_errors
from pipeline.decode.packets import OpenStream, read_packets, use_one_thread
from pipeline.decode.picture import decide_picture, describe_picture, shown_size
from pipeline.errors import DecodeError
from pipeline.values import TimestampSource, VideoInfo, VideoSource

NS_PER_S = 1_000_000_000
DEFAULT_RATE = Fraction(25)
TAIL_TOLERANCE = Fraction(1, 20)
"""Share of the header's frames that may be missing before the file counts as cut off."""


@dataclass(slots=True)
class Track:
    """What the packets of one stream say."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    key_pts: array[int] = field(default_factory=lambda: array("q"))
    true_key_pts: array[int] = field(default_factory=lambda: array("q"))
    packets: int = 0
    uncertain: int = 0
    """Packets without a tick, or of which only decoding tells whether they show a picture."""
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the frames of a stream are shown, in ticks of `time_base`."""

    timestamps: TimestampSource
    time_base: Fraction
    frame_pts: NDArray[np.int64]
    key_pts: NDArray[np.int64]
    warnings: tuple[str, ...]


def scan_video(source: VideoSource) -> VideoInfo:
    """Read what a video holds: its stream, frames, key frames and how its pictures are to be shown.

    Raises:
        DecodeError: it cannot be read (`io`), holds no video or none that can be decoded (`unsupported`), or nothing that
            decodes (`corrupt`).
    """
    with decode_errors(source.uri), open_container(source.uri) as container:
        tracks = read_tracks(container)
        stream, warnings = choose_stream(container, tracks, source.uri)
        track = tracks[stream.index]
        if not track.packets:
            raise DecodeError("corrupt", f"{source.uri}: the video stream holds no frame")
        first = _first_frame(source.uri, stream.index)
        if first is None:
            if track.encrypted:
                raise DecodeError("unsupported", f"{source.uri}: the video stream is encrypted")
            raise DecodeError("corrupt", f"{source.uri}: not one of {track.packets} packets decodes to a frame")
        timeline = read_timeline(source.uri, stream, track, first)
        return _describe(source, container, stream, first, timeline, warnings)


def read_tracks(container: InputContainer) -> dict[int, Track]:
    """Demux once; the packets of every video stream, by stream index."""
    streams = list(container.streams.video)
    tracks = {stream.index: Track() for stream in streams}
    if not streams:
        return tracks
    codecs = {s.index: s.codec_context.codec.canonical_name if s.codec_context else "" for s in streams}
    extradata = {s.index: s.codec_context.extradata if s.codec_context else None for s in streams}
    for packet in read_packets(container, streams):
        track, codec = tracks[packet.stream_index], codecs[packet.stream_index]
        track.packets += 1
        if not track.pts and packet.has_sidedata("encryption_info"):
            track.encrypted = True
        if packet.is_keyframe and packet.pts is not None:
            track.key_pts.append(packet.pts)
            if starts_decoding(codec, packet, extradata[packet.stream_index]):
                track.true_key_pts.append(packet.pts)
        shows = shows_picture(codec, packet)
        if shows is None or packet.pts is None:
            track.uncertain += 1
        elif shows and not packet.is_discard:
            track.pts.append(packet.pts)
    return tracks


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
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise DecodeError("unsupported", f"{uri}: no decoder for the video stream")

    def rank(stream: VideoStream) -> tuple[bool, int]:
        cover = bool(stream.disposition & Disposition.attached_pic)
        pixels = stream.codec_context.width * stream.codec_context.height
        score = pixels + 100_000_000 * bool(tracks[stream.index].packets)
        return not cover, score + 5_000_000 * bool(stream.disposition & Disposition.default)

    chosen = max(decodable, key=rank)
    if len(streams) == 1:
        return chosen, ()
    size = f"{chosen.codec_context.width}x{chosen.codec_context.height}"
    return chosen, (f"{len(streams)} video streams: took stream {chosen.index} ({size})",)


def read_timeline(uri: str, stream: VideoStream, track: Track, first: VideoFrame) -> Timeline:
    """Settle when frames are shown: by the packets where they tell, else by decoding the whole stream once."""
    assert stream.time_base is not None
    frame_pts = np.unique(np.frombuffer(track.pts, dtype=np.int64))
    keys = np.frombuffer(track.true_key_pts or track.key_pts, dtype=np.int64)
    clean = not track.uncertain and len(frame_pts) == len(track.pts) and bool(np.all(np.diff(keys) > 0))
    warnings: list[str] = []
    if clean and first.pts is not None:
        return Timeline("stream", stream.time_base, frame_pts[frame_pts >= first.pts], keys, ())
    decoded = list(_decoded_pts(uri, stream.index))
    if all(pts is not None for pts in decoded):
        ticks = np.asarray(decoded, dtype=np.int64)
        if np.all(np.diff(ticks) > 0):
            warnings.append("packets do not tell the frames: counted by decoding")
            return Timeline(
                "stream", stream.time_base, ticks, keys if np.all(np.diff(keys) > 0) else ticks[:1], tuple(warnings)
            )
    rate = Fraction(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)
    warnings.append(f"timestamps are unusable: frames are counted, at {float(rate):g} frames a second")
    numbers = np.arange(len(decoded), dtype=np.int64)
    return Timeline("ordinal", 1 / rate, numbers, numbers[:1], tuple(warnings))


def _first_frame(uri: str, stream_index: int) -> VideoFrame | None:
    return next(_decoded(uri, stream_index), None)


def _decoded_pts(uri: str, stream_index: int) -> Iterator[int | None]:
    for frame in _decoded(uri, stream_index):
        yield frame.pts


def _decoded(uri: str, stream_index: int) -> Iterator[VideoFrame]:
    stream = OpenStream(uri, stream_index)
    try:
        more = True
        while more:
            packet = stream.read()
            more = packet is not None
            try:
                yield from stream.decode(packet)
            except av.error.FFmpegError:
                continue
    finally:
        stream.close()


def _describe(
    source: VideoSource,
    container: InputContainer,
    stream: VideoStream,
    first: VideoFrame,
    timeline: Timeline,
    warnings: Sequence[str],
) -> VideoInfo:
    picture = decide_picture(first, stream)
    height, width = shown_size(first, picture)
    codec = stream.codec_context.codec.canonical_name
    duration_s = _header_duration_s(container, stream)
    missing_tail_ns, more = missing_tail(stream.frames, duration_s, timeline)
    return VideoInfo(
        source=source,
        container=container.format.name,
        codec=codec,
        pixel_format=first.format.name,
        stream_index=stream.index,
        width_px=width,
        height_px=height,
        rotation_deg=picture.rotation_deg,
        mirrored=picture.mirrored,
        picture=picture,
        picture_policy=describe_picture(picture, first.format.name),
        frame_rate=stream.average_rate,
        frames_header=stream.frames,
        duration_header_s=None if duration_s is None else float(duration_s),
        timestamps=timeline.timestamps,
        time_base=timeline.time_base,
        frames_found=len(timeline.frame_pts),
        start_pts=int(timeline.frame_pts[0]),
        last_pts=int(timeline.frame_pts[-1]),
        key_pts=timeline.key_pts,
        frame_pts=timeline.frame_pts,
        skip_nonreference=_may_skip(codec, stream, picture.interlaced),
        missing_tail_ns=missing_tail_ns,
        warnings=(*warnings, *timeline.warnings, *more),
    )


def _may_skip(codec: str, stream: VideoStream, interlaced: bool) -> bool:
    if interlaced:
        return False
    return codec == "h264" or (codec == "hevc" and has_one_temporal_layer(stream.codec_context.extradata))


def _header_duration_s(container: InputContainer, stream: VideoStream) -> Fraction | None:
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    return Fraction(container.duration, 1_000_000) if container.duration else None


def missing_tail(frames_header: int, duration_s: Fraction | None, timeline: Timeline) -> tuple[int, tuple[str, ...]]:
    """Compare the header's frame count with what was found.

    Returns:
        Nanoseconds that a cut-off file lacks (0 where it is whole), and a warning where the counts differ.
    """
    found = len(timeline.frame_pts)
    if not frames_header or frames_header == found:
        return 0, ()
    warning = (f"the header says {frames_header} frames, {found} were found",)
    if found >= frames_header * (1 - TAIL_TOLERANCE) or duration_s is None:
        return 0, warning
    span_s = int(timeline.frame_pts[-1] - timeline.frame_pts[0]) * timeline.time_base
    tail_s = duration_s - span_s * Fraction(found, max(found - 1, 1))
    return max(int(tail_s * NS_PER_S), 0), warning
