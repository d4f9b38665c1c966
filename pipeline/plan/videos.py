"""Scanned videos to rows of the plan: how many clips, over which time, what is lost already. Values only."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from pipeline.errors import DecodeError
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import VideoSource
from pipeline.plan.clips import clip_span_ns, grid_length, instant_ns, instants_of, num_clips
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.spans import address_of_part, split_id
from pipeline.video.index import is_one_piece
from pipeline.video_info import VideoInfo


def plan_video(info: VideoInfo, *, fps: Fraction, clip_frames: int) -> PlannedVideo:
    """Cut one scanned video, or the part of it that its id names, into clips.

    Raises:
        DecodeError: the part holds no sampling time.
    """
    instants = instants_of(info, fps)
    if not instants:
        raise _nothing_in_it(info, fps)
    clips = num_clips(instants, clip_frames)
    _, end_ns = clip_span_ns(clips - 1, instants, fps, clip_frames)
    return PlannedVideo(
        source=_source_of(info),
        container=info.container,
        codec=info.codec,
        pixel_format=info.pixel_format,
        width_px=info.width_px,
        height_px=info.height_px,
        rotation_deg=info.rotation_deg,
        mirrored=info.mirrored,
        has_audio=info.has_audio,
        picture_policy=info.picture_policy,
        frames_header=info.frames_header,
        frames_found=info.frames_found,
        duration_header_s=info.duration_header_s,
        duration_found_s=float((info.last_pts - info.start_pts) * info.time_base),
        num_clips=clips,
        num_instants=len(instants),
        first_instant=instants.start,
        start_ns=instant_ns(instants.start, fps),
        end_ns=end_ns,
        is_sequential=is_one_piece(info),
        failures=_missing_tail(info, fps),
        warnings=(*info.warnings, *_warnings_of_part(info, fps)),
    )


def _source_of(info: VideoInfo) -> VideoSource:
    return replace(info.source, uri=address_of_part(info.source.uri, split_id(info.source.video_id)[1]))


def _nothing_in_it(info: VideoInfo, fps: Fraction) -> DecodeError:
    last_ns = instant_ns(grid_length(info, fps) - 1, fps)
    return DecodeError(
        "unsupported",
        f"no sampling time lies between start and end: they are {float(1 / fps):g} s apart, the last at "
        f"{last_ns / 1e9:g} s",
    )


def _warnings_of_part(info: VideoInfo, fps: Fraction) -> tuple[str, ...]:
    span = split_id(info.source.video_id)[1]
    end_ns = instant_ns(grid_length(info, fps), fps)
    if span is None or span.end_ms is None or info.missing_tail_ns or span.end_ms * 1_000_000 <= end_ns:
        return ()
    return (f"the part that is asked for ends at {span.end_ms / 1000:g} s, the video at {end_ns / 1e9:g} s",)


def _missing_tail(info: VideoInfo, fps: Fraction) -> tuple[FailedRange, ...]:
    """What the file promises and lacks, as far as it is asked for."""
    span = split_id(info.source.video_id)[1]
    start_ns = instant_ns(grid_length(info, fps), fps)
    end_ns = start_ns + info.missing_tail_ns
    if span is not None and span.end_ms is not None:
        end_ns = min(end_ns, span.end_ms * 1_000_000)
    if start_ns >= end_ns:
        return ()
    source = _source_of(info)
    return (
        FailedRange(
            video_id=source.video_id,
            uri=source.uri,
            start_ns=start_ns,
            end_ns=end_ns,
            failure="truncated",
            message=f"the file ends {info.missing_tail_ns / 1e9:.1f} s before its header says",
            attempts=1,
            stage="scan",
        ),
    )
