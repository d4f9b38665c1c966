"""A video source to what it holds: one pass over the packets, and the decoding of its first frame."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction

from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.counted import counted
from pipeline.errors import DecodeError
from pipeline.inputs.named import VideoSource
from pipeline.video.container import Opened, open_container
from pipeline.video.failures import decode_errors
from pipeline.video.packets import Demuxed
from pipeline.video.picture import aspect_warning, decide_picture, describe_picture, shown_size
from pipeline.video.places import FORMATS, thinned
from pipeline.video.tables import track_from_table
from pipeline.video.timeline import Timeline, decode_all, missing_tail, read_timeline
from pipeline.video.tracks import Track, choose_stream, read_tracks
from pipeline.video_info import VideoInfo


def scan_video(source: VideoSource) -> VideoInfo:
    """Read what a video holds: its stream, frames, key frames and how its pictures are to be shown.

    Raises:
        DecodeError: it cannot be read (`io`), holds no video or none that can be decoded (`unsupported`), or nothing
            that decodes (`corrupt`).
    """
    uri = source.uri
    with decode_errors(uri), ExitStack() as closing:
        opened = closing.enter_context(open_container(uri))
        found = read_tables(opened)
        if found is None and opened.moov is not None:
            # Looking at some packets has moved on from the start.
            closing.close()
            opened = closing.enter_context(open_container(uri))
        container = opened.container
        tracks, demuxed = found or read_tracks(container)
        stream, warnings = choose_stream(container, tracks, uri)
        track = tracks[stream.index]
        first = first_frame(uri, stream, track)
        promised_s = _header_duration_s(container, stream)
        timeline = read_timeline(uri, container, stream, track, first, promised_s)
        warnings += timeline.warnings + _unread(demuxed) + aspect_warning(stream)
        missing_tail_ns, more = missing_tail(container, stream, track, timeline)
        return _describe(
            source, container, stream, track, first, timeline, promised_s, missing_tail_ns, warnings + more
        )


def read_tables(opened: Opened) -> tuple[dict[int, Track], None] | None:
    """The tracks of a remote file by its tables; None where only its packets tell."""
    streams = list(opened.container.streams.video)
    # Of several streams the packets say which to take.
    if opened.file is None or opened.moov is None or len(streams) != 1 or not streams[0].codec_context:
        return None
    track = track_from_table(opened.container, streams[0], opened.file, opened.moov)
    return None if track is None else ({streams[0].index: track}, None)


def _unread(demuxed: Demuxed | None) -> tuple[str, ...]:
    """A word on what of the container could not be read: its end was not reached, or parts were stepped over."""
    if demuxed is None:
        return ()
    if demuxed.given_up:
        return ("the container is damaged: its rest was given up, and what it holds is not known",)
    return (f"the container is damaged in {counted(demuxed.errors, 'place')}",) if demuxed.errors else ()


def first_frame(uri: str, stream: VideoStream, track: Track) -> VideoFrame:
    """Decode up to the first frame that comes out.

    Raises:
        DecodeError: none does.
    """
    if not track.packets:
        raise DecodeError("corrupt", f"{uri}: the video stream holds no frame")
    for frame in decode_all(uri, stream.index):
        return frame
    if track.encrypted:
        raise DecodeError("unsupported", f"{uri}: the video stream is encrypted")
    raise DecodeError("corrupt", f"{uri}: not one of {counted(track.packets, 'packet')} decodes to a frame")


def _describe(
    source: VideoSource,
    container: InputContainer,
    stream: VideoStream,
    track: Track,
    first: VideoFrame,
    timeline: Timeline,
    promised_s: Fraction | None,
    missing_tail_ns: int,
    warnings: tuple[str, ...],
) -> VideoInfo:
    try:
        picture = decide_picture(first, stream)
    except DecodeError as error:
        raise DecodeError(error.failure, f"{source.uri}: {error}") from error
    height, width = shown_size(first, picture)
    return VideoInfo(
        source=source,
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
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
        duration_header_s=None if promised_s is None else float(promised_s),
        timestamps=timeline.timestamps,
        time_base=timeline.time_base,
        frames_found=len(timeline.frame_pts),
        start_pts=int(timeline.frame_pts[0]),
        last_pts=int(timeline.frame_pts[-1]),
        key_pts=timeline.key_pts,
        frame_pts=timeline.frame_pts,
        skip_nonreference=_may_drop(stream, track),
        key_waits=timeline.key_waits,
        key_places=_places(source, container, track, timeline),
        missing_pts=timeline.missing_pts,
        missing_step=timeline.missing_step,
        missing_tail_ns=missing_tail_ns,
        has_audio=bool(container.streams.audio),
        warnings=warnings,
    )


def _places(
    source: VideoSource, container: InputContainer, track: Track, timeline: Timeline
) -> tuple[tuple[int, int], ...]:
    if timeline.timestamps != "stream" or container.format.name not in FORMATS:
        return ()
    keys = set(timeline.key_pts.tolist())
    found = zip(track.key_pts, track.key_bytes, strict=True)
    return thinned(((tick, byte) for tick, byte in found if tick in keys), source.size_bytes)


def _may_drop(stream: VideoStream, track: Track) -> bool:
    """Whether packets may be left out where their headers say so.

    A VP9 stream has to be error resilient throughout: what its headers say holds for the frames read so far.
    """
    return stream.codec_context.codec.canonical_name != "vp9" or track.droppable * 8 >= track.packets


def _header_duration_s(container: InputContainer, stream: VideoStream) -> Fraction | None:
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    return Fraction(container.duration, 1_000_000) if container.duration else None
