"""A video source to what it holds: one pass over the packets, and the decoding of its first frame."""

from __future__ import annotations

from fractions import Fraction

from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.decode.bitstream import has_one_temporal_layer
from pipeline.decode.byte_source import open_container
from pipeline.decode.failures import decode_errors
from pipeline.decode.picture import decide_picture, describe_picture, shown_size
from pipeline.decode.timeline import Timeline, decode_all, missing_tail, read_timeline
from pipeline.decode.tracks import Track, choose_stream, read_tracks
from pipeline.errors import DecodeError
from pipeline.values import VideoInfo, VideoSource


def scan_video(source: VideoSource) -> VideoInfo:
    """Read what a video holds: its stream, frames, key frames and how its pictures are to be shown.

    Raises:
        DecodeError: it cannot be read (`io`), holds no video or none that can be decoded (`unsupported`), or nothing
        that
            decodes (`corrupt`).
    """
    uri = source.uri
    with decode_errors(uri), open_container(uri) as container:
        tracks = read_tracks(container)
        stream, warnings = choose_stream(container, tracks, uri)
        track = tracks[stream.index]
        first = first_frame(uri, stream, track)
        promised_s = _header_duration_s(container, stream)
        timeline = read_timeline(uri, stream, track, first, promised_s)
        if timeline.warning:
            warnings += (timeline.warning,)
        missing_tail_ns, more = missing_tail(container, stream, track, timeline)
        return _describe(source, container, stream, first, timeline, promised_s, missing_tail_ns, warnings + more)


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
    raise DecodeError("corrupt", f"{uri}: not one of {track.packets} packets decodes to a frame")


def _describe(
    source: VideoSource,
    container: InputContainer,
    stream: VideoStream,
    first: VideoFrame,
    timeline: Timeline,
    promised_s: Fraction | None,
    missing_tail_ns: int,
    warnings: tuple[str, ...],
) -> VideoInfo:
    picture = decide_picture(first, stream)
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
        skip_nonreference=_may_skip(stream, interlaced=picture.interlaced),
        missing_tail_ns=missing_tail_ns,
        warnings=warnings,
    )


def _may_skip(stream: VideoStream, *, interlaced: bool) -> bool:
    """Whether non-reference pictures can be left out; of two fields of a picture, one may be such."""
    codec, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata
    return not interlaced and (codec == "h264" or (codec == "hevc" and has_one_temporal_layer(extradata)))


def _header_duration_s(container: InputContainer, stream: VideoStream) -> Fraction | None:
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    return Fraction(container.duration, 1_000_000) if container.duration else None
