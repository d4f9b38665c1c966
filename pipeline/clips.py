"""Frame times to grid, clips and units: pure integer time, no video library.

The grid of a video is t_i = t_0 + i / fps for every i with t_i <= the time of the LAST FRAME. Durations are not used:
headers lie about them and many streams have none, whereas the times of the frames are what a player acts on. A film of
14,315 frames at 24 fps so has 597 instants at 1 fps: its last frame shows at 596.417 s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SettingsError
from pipeline.values import ClipSpec, DecodedClip, FrameChoice, Unit, VideoInfo

NS_PER_S = 1_000_000_000


def grid_length(info: VideoInfo, fps: Fraction) -> int:
    """Number of instants t_0 + i / fps up to and including the last frame's time."""
    span_s = (info.last_pts - info.start_pts) * info.time_base
    return int(span_s * fps) + 1


def instant_ns(index: int, fps: Fraction) -> int:
    """Grid instant `index` in nanoseconds of video time, rounded down."""
    return index * fps.denominator * NS_PER_S // fps.numerator


def frames_on_display(info: VideoInfo, fps: Fraction, frames: FrameChoice = "exact") -> NDArray[np.int64]:
    """Tick of the frame on display at each grid instant: the last with pts <= t_i; or of the key frame nearest to t_i.

    Returns:
        (grid_length,) int64, not decreasing.
    """
    step = 1 / (fps * info.time_base)
    # A frame's tick is an integer, so pts <= t_i holds exactly when pts <= floor(t_i).
    ticks = [info.start_pts + i * step.numerator // step.denominator for i in range(grid_length(info, fps))]
    if frames == "key" and len(keys := info.key_pts[info.key_pts >= info.start_pts]):
        wanted = np.asarray(ticks, dtype=np.int64)
        later = np.searchsorted(keys, wanted).clip(0, len(keys) - 1)
        earlier = (later - 1).clip(0)
        nearest: NDArray[np.int64] = np.where(
            wanted - keys[earlier] <= keys[later] - wanted, keys[earlier], keys[later]
        )
        return nearest
    order = np.searchsorted(info.frame_pts, np.asarray(ticks, dtype=np.int64), side="right") - 1
    return info.frame_pts[order]


def plan_clips(
    info: VideoInfo, *, fps: Fraction, clip_frames: int, frames: FrameChoice = "exact"
) -> tuple[ClipSpec, ...]:
    """Cut the grid of one video into clips of `clip_frames` consecutive instants; the last may be shorter.

    Raises:
        SettingsError: `fps` or `clip_frames` is not positive.
    """
    if fps <= 0:
        raise SettingsError(f"fps must be positive, got {fps}; try 1")
    if clip_frames < 1:
        raise SettingsError(f"clip_frames must be at least 1, got {clip_frames}; try 60")
    shown = frames_on_display(info, fps, frames)
    clips = []
    for index, first in enumerate(range(0, len(shown), clip_frames)):
        pts, instants = np.unique(shown[first : first + clip_frames], return_counts=True)
        clips.append(
            ClipSpec(
                video_id=info.source.video_id,
                index=index,
                start_ns=instant_ns(first, fps),
                end_ns=instant_ns(min(first + clip_frames, len(shown)), fps),
                frame_pts=tuple(pts.tolist()),
                frame_instants=tuple(instants.tolist()),
            )
        )
    return tuple(clips)


def plan_units(clips: Sequence[ClipSpec], unit_clips: int) -> tuple[Unit, ...]:
    """Group the clips of one video into units of `unit_clips`; the last may be shorter.

    Raises:
        SettingsError: `unit_clips` is not positive.
    """
    if unit_clips < 1:
        raise SettingsError(f"unit_clips must be at least 1, got {unit_clips}; try 1")
    units = []
    for first in range(0, len(clips), unit_clips):
        members = tuple(clips[first : first + unit_clips])
        units.append(Unit(unit_id=unit_id(members), video_id=members[0].video_id, clips=members))
    return tuple(units)


def unit_id(clips: Sequence[ClipSpec]) -> str:
    """32 hex digits: the hash of the video, its clips, their ranges and instants (so of fps and clip length too)."""
    parts = [clips[0].video_id, str(len(clips))]
    parts += [f"{clip.index} {clip.start_ns} {clip.end_ns} {sum(clip.frame_instants)}" for clip in clips]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def at_grid_times(clip: DecodedClip) -> DecodedClip:
    """A clip with one frame an instant, repeated where it stays on display: what a video model takes for even time."""
    counts = np.asarray(clip.spec.frame_instants)
    if (counts == 1).all():
        return clip
    return replace(
        clip,
        frames=clip.frames.repeat(counts, axis=0),
        frame_time_ns=clip.frame_time_ns.repeat(counts),
        motion=None if clip.motion is None else clip.motion.repeat(counts, axis=0),
        is_damaged=None if clip.is_damaged is None else clip.is_damaged.repeat(counts),
    )
