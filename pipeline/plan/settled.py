"""What has become of the clips of a plan: committed, given up, or still owed. Values only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from fractions import Fraction

from pipeline.plan.clips import clip_span_ns
from pipeline.plan.table import Plan
from pipeline.plan.units import Clip, Unit
from pipeline.values import FailedRange, PlannedVideo, ShardManifest

MOST_SHARED = 64
NONE: frozenset[int] = frozenset()


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


@dataclass(frozen=True, slots=True)
class Settled:
    """What has become of the clips of a plan."""

    done: dict[str, Set[int]]
    """Clips in committed shards, by video."""
    failures: list[FailedRange]
    """What is lost, of scans and of clips, in order of video and time; what a later attempt made is not lost."""
    lost: dict[str, set[int]]
    """Clips given up, by video."""


def settle(plan: Plan, manifests: Mapping[str, ShardManifest], grid: Grid) -> Settled:
    """Compare a plan with what is committed."""
    done: dict[str, Set[int]] = {}
    shared: dict[frozenset[int], frozenset[int]] = {}
    failed: dict[Clip, FailedRange] = {}
    for shard_id in plan.shards:
        manifest = manifests.get(shard_id)
        if manifest is None:
            continue
        for unit in manifest.clips:
            done[unit.video_id] = _with(done.get(unit.video_id, NONE), unit, shared)
        failed |= failed_clips(plan, manifest, grid)
    lost: dict[str, set[int]] = defaultdict(set)
    for clip in failed:
        if clip.index not in done.get(clip.video_id, NONE):
            lost[clip.video_id].add(clip.index)
    failures = [f for video in plan.videos.values() for f in (*video.failures, *_ranges(video, lost, failed, grid))]
    return Settled(done, failures, lost)


def _with(held: Set[int], unit: Unit, shared: dict[frozenset[int], frozenset[int]]) -> Set[int]:
    """The clips of a video and those of a unit; few ones as one set for all the videos that have the same."""
    clips = range(unit.first, unit.first + unit.count)
    if len(held) + unit.count > MOST_SHARED:
        more = held if isinstance(held, set) else set(held)
        more.update(clips)
        return more
    few = frozenset(held).union(clips)
    return shared.setdefault(few, few)


def failed_clips(plan: Plan, manifest: ShardManifest, grid: Grid) -> dict[Clip, FailedRange]:
    """The clips of a shard that could not be made."""
    return {
        Clip(f.video_id, index): f
        for f in manifest.failures
        if f.video_id in plan.videos
        for index in grid.clips_in(plan.videos[f.video_id], f)
    }


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
