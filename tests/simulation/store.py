"""What outlives a driver: the stored plan and the committed shards; and what must hold of them in the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pipeline.engine.commands import AppendPlan
from pipeline.failed_range import FailedRange
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import Clip, ShardUnit, Unit
from tests.simulation.scenario import CLIP_NS


class ViolationError(AssertionError):
    """Something happened that must not."""


def check(holds: object, text: str) -> None:
    if not holds:
        raise ViolationError(text)


def clips_of(failed: FailedRange) -> list[Clip]:
    return [Clip(failed.video_id, i) for i in range(failed.start_ns // CLIP_NS, -(-failed.end_ns // CLIP_NS))]


@dataclass
class Stored:
    rows: list[AppendPlan] = field(default_factory=list)
    unsaved: list[AppendPlan] = field(default_factory=list)
    """Rows that the driver has not written yet."""
    units: dict[str, list[Unit]] = field(default_factory=dict)
    """Of each planned shard, in the order of the plan, saved or not."""
    shards: dict[str, tuple[tuple[Clip, ...], tuple[FailedRange, ...]]] = field(default_factory=dict)

    def append(self, row: AppendPlan) -> None:
        for shard_id, unit in row.units:
            check(shard_id not in self.shards, f"shard {shard_id} is written, and grows")
            self.units.setdefault(shard_id, []).append(unit)
        self.unsaved.append(row)

    def save(self) -> None:
        self.rows += self.unsaved
        self.unsaved = []

    def crash(self) -> None:
        """Forget what was not saved."""
        self.unsaved = []
        self.units = {}
        for row in self.rows:
            for shard_id, unit in row.units:
                self.units.setdefault(shard_id, []).append(unit)

    def commit(self, shard_id: str, clips: tuple[Clip, ...], failures: tuple[FailedRange, ...]) -> None:
        """A writer moves a shard to its place. One that is there already stays."""
        before = self.shards.setdefault(shard_id, (clips, failures))
        check(before[0] == clips, f"shard {shard_id} is written twice, with other clips")

    def videos(self) -> dict[str, PlannedVideo]:
        found: dict[str, PlannedVideo] = {}
        for row in self.rows:
            found.setdefault(row.video.source.video_id, row.video)
        return found

    def pending(self) -> dict[str, tuple[PlannedVideo, list[ShardUnit]]]:
        """Of every planned video the units whose shards are not there."""
        found: dict[str, tuple[PlannedVideo, list[ShardUnit]]] = {}
        for row in self.rows:
            units = found.setdefault(row.video.source.video_id, (row.video, []))[1]
            units += [unit for unit in row.units if unit.shard_id not in self.shards]
        return found

    def failed_clips(self) -> set[Clip]:
        """Recorded as failed, and not made since."""
        failed = {clip for _, failures in self.shards.values() for row in failures for clip in clips_of(row)}
        return failed - {clip for clips, _ in self.shards.values() for clip in clips} - self._coming()

    def _coming(self) -> set[Clip]:
        """Clips of shards that are planned and not written."""
        units = (unit for shard_id, units in self.units.items() if shard_id not in self.shards for unit in units)
        return {Clip(unit.video_id, i) for unit in units for i in range(unit.first, unit.first + unit.count)}

    def times_planned(self, clip: Clip) -> int:
        units = (unit for units in self.units.values() for unit in units)
        return sum(unit.video_id == clip.video_id and 0 <= clip.index - unit.first < unit.count for unit in units)

    def check_content(self, shard_id: str, clips: tuple[Clip, ...], failures: tuple[FailedRange, ...]) -> None:
        """What is to be written is what the plan says, in its order, less what failed."""
        check(shard_id in self.units, f"shard {shard_id} is not in the plan")
        planned = [Clip(u.video_id, i) for u in self.units[shard_id] for i in range(u.first, u.first + u.count)]
        failed = [clip for row in failures for clip in clips_of(row)]
        check(len(failed) == len(set(failed)), f"shard {shard_id}: a failure is recorded twice")
        lost = set(failed)
        check([c for c in planned if c not in lost] == list(clips), f"shard {shard_id}: {clips} is not the plan")
        check(lost <= set(planned), f"shard {shard_id}: failures that are not its own")

    def check_complete(self, videos: dict[str, PlannedVideo]) -> None:
        """Each clip of each video ended exactly once: written, or recorded as failed and never written."""
        made = Counter(clip for clips, _ in self.shards.values() for clip in clips)
        check(all(n == 1 for n in made.values()), "a clip is in two shards")
        failed = self.failed_clips()
        planned = self.videos()
        unread = {row.video.source.uri for row in self.rows if row.video.failures}
        for uri, video in videos.items():
            if video.source.video_id not in planned:
                check(uri in unread, f"{uri} is not in the plan")
                continue
            for i in range(video.num_clips):
                clip = Clip(video.source.video_id, i)
                check((clip in made) != (clip in failed), f"{clip} is lost, or made and failed")
        check(set(self.units) == set(self.shards), "a shard is planned and not written")
