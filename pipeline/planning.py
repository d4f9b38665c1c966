"""Scanned videos to shards: which clips, in which units, in which file. Values only, no pixels and no files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from fractions import Fraction

from pipeline.clips import plan_clips, plan_units
from pipeline.errors import DecodeError
from pipeline.values import FailedRange, FrameChoice, PlannedVideo, ShardPlan, Unit, VideoInfo, VideoSource
from pipeline.video import is_one_piece, timing_of


def plan_video(
    info: VideoInfo, *, fps: Fraction, clip_frames: int, unit_clips: int, frames: FrameChoice = "exact"
) -> tuple[PlannedVideo, list[Unit]]:
    """Cut one scanned video into clips and units; one that is decoded in one piece is one unit."""
    clips = plan_clips(info, fps=fps, clip_frames=clip_frames, frames=frames)
    if is_one_piece(info):
        unit_clips = len(clips)
    found = (info.last_pts - info.start_pts) * info.time_base
    end_ns = clips[-1].end_ns
    video = PlannedVideo(
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
        duration_found_s=float(found),
        num_clips=len(clips),
        num_instants=sum(sum(clip.frame_instants) for clip in clips),
        end_ns=end_ns,
        timing=timing_of(info),
        failures=_missing_tail(info, end_ns),
        warnings=info.warnings,
    )
    return video, list(plan_units(clips, unit_clips))


def _missing_tail(info: VideoInfo, end_ns: int) -> tuple[FailedRange, ...]:
    if not info.missing_tail_ns:
        return ()
    message = f"the file ends {info.missing_tail_ns / 1e9:.1f} s before its header says"
    return (_failed(info.source, DecodeError("truncated", message), end_ns, end_ns + info.missing_tail_ns),)


def failed_video(source: VideoSource, error: DecodeError, attempts: int = 1) -> PlannedVideo:
    """A video of which nothing can be extracted: it stays in the plan, so that nobody scans it again and again."""
    return PlannedVideo(source=source, failures=(_failed(source, error, 0, 0, attempts),))


def _failed(source: VideoSource, error: DecodeError, start_ns: int, end_ns: int, attempts: int = 1) -> FailedRange:
    return FailedRange(
        video_id=source.video_id,
        uri=source.uri,
        start_ns=start_ns,
        end_ns=end_ns,
        failure=error.failure,
        message=str(error),
        attempts=attempts,
    )


def pack_shards(units: Iterable[Unit], shard_clips: int) -> Iterator[ShardPlan]:
    """Fill shards with whole units, in order, up to `shard_clips` clips each."""
    chosen: list[Unit] = []
    count = 0
    for unit in units:
        if chosen and count + len(unit.clips) > shard_clips:
            yield _shard(chosen)
            chosen, count = [], 0
        chosen.append(unit)
        count += len(unit.clips)
    if chosen:
        yield _shard(chosen)


def _shard(units: list[Unit]) -> ShardPlan:
    digest = hashlib.sha256("\n".join(unit.unit_id for unit in units).encode()).hexdigest()
    return ShardPlan(shard_id=digest[:16], units=tuple(units))
