"""Scanned videos to rows of the plan: how many clips, over which time, what is lost already. Values only."""

from __future__ import annotations

from fractions import Fraction

from pipeline.plan.clips import clip_span_ns, grid_length, num_clips
from pipeline.values import FailedRange, PlannedVideo, VideoInfo
from pipeline.video.index import is_one_piece


def plan_video(info: VideoInfo, *, fps: Fraction, clip_frames: int) -> PlannedVideo:
    """Cut one scanned video into clips."""
    num_instants = grid_length(info, fps)
    clips = num_clips(num_instants, clip_frames)
    _, end_ns = clip_span_ns(clips - 1, num_instants, fps, clip_frames)
    return PlannedVideo(
        source=info.source,
        container=info.container,
        codec=info.codec,
        pixel_format=info.pixel_format,
        width_px=info.width_px,
        height_px=info.height_px,
        rotation_deg=info.rotation_deg,
        mirrored=info.mirrored,
        picture_policy=info.picture_policy,
        frames_header=info.frames_header,
        frames_found=info.frames_found,
        duration_header_s=info.duration_header_s,
        duration_found_s=float((info.last_pts - info.start_pts) * info.time_base),
        num_clips=clips,
        num_instants=num_instants,
        end_ns=end_ns,
        is_sequential=is_one_piece(info),
        failures=_missing_tail(info, end_ns),
        warnings=info.warnings,
    )


def _missing_tail(info: VideoInfo, end_ns: int) -> tuple[FailedRange, ...]:
    if not info.missing_tail_ns:
        return ()
    return (
        FailedRange(
            video_id=info.source.video_id,
            uri=info.source.uri,
            start_ns=end_ns,
            end_ns=end_ns + info.missing_tail_ns,
            failure="truncated",
            message=f"the file ends {info.missing_tail_ns / 1e9:.1f} s before its header says",
            attempts=1,
            stage="scan",
        ),
    )
