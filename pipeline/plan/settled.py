"""What has become of the clips of a plan: committed, given up, or still owed. Values only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.failed_range import FailedRange
from pipeline.plan.clips import clip_span_ns
from pipeline.plan.plan import Plan, Videos
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import Clip, Unit
from pipeline.shards.commit_record import ShardManifest


@dataclass(frozen=True, slots=True)
class Grid:
    """How videos are cut into clips."""

    fps: Fraction
    clip_frames: int

    def span_ns(self, video: PlannedVideo, index: int) -> tuple[int, int]:
        """Start and end of a clip."""
        instants = range(video.first_instant, video.first_instant + video.num_instants)
        return clip_span_ns(index, instants, self.fps, self.clip_frames)

    def clips_in(self, video: PlannedVideo, failed: FailedRange) -> range:
        """The clips that begin within a range that was lost."""
        first = _first_at(failed.start_ns, self, video)
        return range(first, _first_at(failed.end_ns, self, video))


def _first_at(time_ns: int, grid: Grid, video: PlannedVideo) -> int:
    """The first clip that begins at a time or after it."""
    clip_ns = Fraction(grid.clip_frames * 1_000_000_000) / grid.fps
    guess = max(0, int((time_ns - video.start_ns) / clip_ns) - 1)
    while guess < video.num_clips and grid.span_ns(video, guess)[0] < time_ns:
        guess += 1
    return min(guess, video.num_clips)


class DoneClips:
    """Which clips of a plan are in committed shards: a byte a clip.

    Args:
        videos: The videos of the plan.
    """

    def __init__(self, videos: Videos) -> None:
        self._videos = videos
        self._starts = np.concatenate([[0], np.cumsum(videos.column("num_clips"))])
        self._is_done = np.zeros(self._starts[-1], np.bool_)

    def add(self, unit: Unit) -> None:
        """Clips that are committed; what is not in the plan is left out."""
        number = self._videos.number(unit.video_id)
        if number is not None:
            first, end = self._starts[number] + unit.first, self._starts[number + 1]
            self._is_done[first : min(first + unit.count, end)] = True

    def __contains__(self, clip: Clip) -> bool:
        number = self._videos.number(clip.video_id)
        if number is None:
            return False
        position = self._starts[number] + clip.index
        return bool(position < self._starts[number + 1] and self._is_done[position])

    def counts(self) -> NDArray[np.int64]:
        """(names,) clips of each video, by its number in the plan."""
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._is_done)])
        counts: NDArray[np.int64] = np.diff(before[self._starts])
        return counts

    @property
    def total(self) -> int:
        """All clips."""
        return int(self._is_done.sum())


@dataclass(frozen=True, slots=True)
class Settled:
    """What has become of the clips of a plan."""

    done: DoneClips
    """Clips in committed shards."""
    failures: list[FailedRange]
    """What is lost, of scans and of clips, in order of video and time; what a later attempt made is not lost."""
    lost: dict[str, set[int]]
    """Clips given up, by video."""


def settle(plan: Plan, manifests: Mapping[str, ShardManifest], grid: Grid) -> Settled:
    """Compare a plan with what is committed."""
    done = DoneClips(plan.videos)
    failed: dict[Clip, FailedRange] = {}
    for shard_id in plan.shards:
        manifest = manifests.get(shard_id)
        if manifest is None:
            continue
        for unit in manifest.clips:
            done.add(unit)
        failed |= failed_clips(plan, manifest, grid)
    lost: dict[str, set[int]] = defaultdict(set)
    for clip in failed:
        if clip not in done:
            lost[clip.video_id].add(clip.index)
    numbers = [plan.videos.number(video_id) for video_id in lost]
    with_losses = np.union1d(plan.videos.with_failures(), np.array([n for n in numbers if n is not None], np.int64))
    failures = [
        f for video in plan.videos.at(with_losses) for f in (*video.failures, *_ranges(video, lost, failed, grid))
    ]
    return Settled(done, failures, lost)


def failed_clips(plan: Plan, manifest: ShardManifest, grid: Grid) -> dict[Clip, FailedRange]:
    """The clips of a shard that could not be made."""
    failed: dict[Clip, FailedRange] = {}
    for f in manifest.failures:
        video = plan.videos.get(f.video_id)
        if video is not None:
            failed |= {Clip(f.video_id, index): f for index in grid.clips_in(video, f)}
    return failed


def covers(plan: Plan, shard_id: str, manifest: ShardManifest, grid: Grid) -> bool:
    """Whether a committed shard has every clip that it was planned for, or a failure in its place."""
    planned, held = plan.shards[shard_id], set(manifest.clips)
    if all(unit in held for unit in planned):
        return True
    clips = {clip for unit in manifest.clips for clip in unit.clips} | failed_clips(plan, manifest, grid).keys()
    return all(clip in clips for unit in planned for clip in unit.clips)


def _ranges(
    video: PlannedVideo, lost: Mapping[str, set[int]], failed: Mapping[Clip, FailedRange], grid: Grid
) -> list[FailedRange]:
    """The lost clips of a video as ranges: neighbours that were recorded together stay together."""
    rows: list[FailedRange] = []
    before: FailedRange | None = None
    for index in sorted(lost.get(video.source.video_id, ())):
        recorded = failed[Clip(video.source.video_id, index)]
        start_ns, end_ns = grid.span_ns(video, index)
        if recorded is before and rows[-1].end_ns == start_ns:
            rows[-1] = replace(rows[-1], end_ns=end_ns)
        else:
            rows.append(replace(recorded, start_ns=start_ns, end_ns=end_ns))
        before = recorded
    return rows


def consecutive(video_id: str, clips: Iterable[int]) -> list[Unit]:
    """Clip numbers as units of consecutive ones."""
    units: list[Unit] = []
    for index in sorted(clips):
        if units and units[-1].first + units[-1].count == index:
            units[-1] = Unit(video_id, units[-1].first, units[-1].count + 1)
        else:
            units.append(Unit(video_id, index, 1))
    return units
