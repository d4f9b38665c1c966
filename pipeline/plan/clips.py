"""Frame times to grid and clips: pure integer time, no video library.

The grid of a video is t_i = t_0 + i / fps for every i with t_i <= the time of the LAST FRAME. Durations are not used:
headers lie about them and many streams have none, whereas the times of the frames are what a player acts on. A film of
14,315 frames at 24 fps so has 597 instants at 1 fps: its last frame shows at 596.417 s.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SettingsError
from pipeline.plan.spans import split_id
from pipeline.values import ClipSpec, DecodedClip, FrameChoice
from pipeline.video_info import VideoInfo

NS_PER_S = 1_000_000_000


def grid_length(info: VideoInfo, fps: Fraction) -> int:
    """Number of instants t_0 + i / fps up to and including the last frame's time."""
    span_s = (info.last_pts - info.start_pts) * info.time_base
    return int(span_s * fps) + 1


def instant_ns(index: int, fps: Fraction) -> int:
    """Grid instant `index` in nanoseconds of video time, rounded down."""
    return index * fps.denominator * NS_PER_S // fps.numerator


def clip_instants(index: int, instants: range, clip_frames: int) -> range:
    """The sampling times of a clip: `clip_frames` of the video's grid, cut to those that are meant.

    Args:
        index: Of the clip, counted from the first that holds any.
        instants: The sampling times that are meant: all of a video's, or those of a part of it.
        clip_frames: Sampling times of a whole clip.
    """
    first = (instants.start // clip_frames + index) * clip_frames
    return range(max(first, instants.start), min(first + clip_frames, instants.stop))


def clip_span_ns(index: int, instants: range, fps: Fraction, clip_frames: int) -> tuple[int, int]:
    """Start and end of a clip in nanoseconds of video time; the first and the last may be shorter than others."""
    held = clip_instants(index, instants, clip_frames)
    return instant_ns(held.start, fps), instant_ns(held.stop, fps)


def frames_on_display(
    info: VideoInfo, fps: Fraction, first: int, last: int, frames: FrameChoice = "exact"
) -> NDArray[np.int64]:
    """Tick of the frame on display at the sampling times first to last - 1: the last with pts <= t_i.

    With `key` it is the tick of the key frame nearest to t_i.

    Returns:
        (last - first,) int64, not decreasing.
    """
    step = 1 / (fps * info.time_base)
    # A frame's tick is an integer, so pts <= t_i holds exactly when pts <= floor(t_i).
    ticks = [info.start_pts + i * step.numerator // step.denominator for i in range(first, last)]
    if frames == "key" and len(keys := info.key_pts[info.key_pts >= info.start_pts]):
        return _nearest(keys, np.asarray(ticks, dtype=np.int64))
    order = np.searchsorted(info.frame_pts, np.asarray(ticks, dtype=np.int64), side="right") - 1
    return info.frame_pts[order]


def _nearest(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The nearest of `keys` to each of `wanted`, the earlier one of two."""
    later = np.searchsorted(keys, wanted).clip(0, len(keys) - 1)
    earlier = (later - 1).clip(0)
    nearest: NDArray[np.int64] = np.where(wanted - keys[earlier] <= keys[later] - wanted, keys[earlier], keys[later])
    return nearest


def plan_clips(
    info: VideoInfo,
    *,
    fps: Fraction,
    clip_frames: int,
    first: int = 0,
    count: int | None = None,
    frames: FrameChoice = "exact",
) -> tuple[ClipSpec, ...]:
    """The clips of one video, of `clip_frames` consecutive sampling times each; the first and the last may be shorter.

    Args:
        info: What the video holds; its id says whether a part of it is meant.
        fps: Sampling times a second.
        clip_frames: Sampling times a clip.
        first: The clip to begin with.
        count: How many; None: all that follow.
        frames: Which frame represents a sampling time.

    Raises:
        SettingsError: `fps` or `clip_frames` is not positive.
    """
    if fps <= 0:
        raise SettingsError(f"fps must be positive, got {fps}; try 1")
    if clip_frames < 1:
        raise SettingsError(f"clip_frames must be at least 1, got {clip_frames}; try 60")
    meant = instants_of(info, fps)
    total = num_clips(meant, clip_frames)
    last = total if count is None else min(first + count, total)
    if first >= last:
        return ()
    begin = clip_instants(first, meant, clip_frames).start
    shown = frames_on_display(info, fps, begin, clip_instants(last - 1, meant, clip_frames).stop, frames)
    clips = []
    for index in range(first, last):
        held = clip_instants(index, meant, clip_frames)
        pts, instants = np.unique(shown[held.start - begin : held.stop - begin], return_counts=True)
        start_ns, end_ns = clip_span_ns(index, meant, fps, clip_frames)
        clips.append(
            ClipSpec(
                video_id=info.source.video_id,
                index=index,
                start_ns=start_ns,
                end_ns=end_ns,
                frame_pts=tuple(pts.tolist()),
                frame_instants=tuple(instants.tolist()),
            )
        )
    return tuple(clips)


def instants_of(info: VideoInfo, fps: Fraction) -> range:
    """The sampling times of a video, or of the part of it that its id names."""
    span = split_id(info.source.video_id)[1]
    length = grid_length(info, fps)
    return range(length) if span is None else span.instants(fps, length)


def num_clips(instants: range, clip_frames: int) -> int:
    """Clips that hold any of the sampling times that are meant."""
    return -(-instants.stop // clip_frames) - instants.start // clip_frames if instants else 0


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
