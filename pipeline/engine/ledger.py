"""Videos, shards and clips that are not finished, and the bytes that they hold. State of the scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from pipeline.engine.worker_pool import Node
from pipeline.failed_range import FailedRange
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import Clip, ShardUnit, Unit


@dataclass(slots=True, eq=False)
class UnsettledVideo:
    """A video with clips that are neither written nor recorded as failed."""

    plan: PlannedVideo
    unsettled: int = 0


@dataclass(slots=True, eq=False)
class ClipState:
    """A clip from the start of its decoding to the commit of its shard."""

    shard_id: str
    node: Node
    """Holds its frames, then its tokens."""
    num_bytes: int
    """Predicted size of its frames, then their size, then the size of its tokens."""
    is_encoded: bool = False


@dataclass(slots=True, eq=False)
class Shard:
    """A shard that is not written."""

    units: list[Unit] = field(default_factory=list)
    is_open: bool = False
    """Whether further units may be added."""
    is_started: bool = False
    outstanding: int = 0
    """Clips that are neither encoded nor given up."""
    failures: dict[Clip, FailedRange] = field(default_factory=dict)
    grown_s: float = 0.0
    writer: int = 0
    """The worker that writes it; 0 for none."""
    attempts: int = 0
    again_s: float = 0.0
    """Earliest time of the next attempt."""

    @property
    def clips(self) -> tuple[Clip, ...]:
        """What the shard holds, in the order of the plan."""
        return tuple(
            clip
            for unit in self.units
            for i in range(unit.first, unit.first + unit.count)
            if (clip := Clip(unit.video_id, i)) not in self.failures
        )


class Ledger:
    """Accounts for every clip, so that each ends exactly once: in a written shard, or in a recorded failure."""

    def __init__(self) -> None:
        self.videos: dict[str, UnsettledVideo] = {}
        self.shards: dict[str, Shard] = {}
        self.clips: dict[Clip, ClipState] = {}
        self.token_bytes = 0

    def add_video(self, video: PlannedVideo, units: Iterable[ShardUnit], open_shard: str | None, now_s: float) -> None:
        """Add clips of a video."""
        for shard_id, unit in units:
            shard = self.shards.setdefault(shard_id, Shard())
            shard.is_open = shard_id == open_shard
            shard.units.append(unit)
            shard.outstanding += unit.count
            shard.grown_s = now_s
            owed = self.videos.setdefault(unit.video_id, UnsettledVideo(video))
            owed.unsettled += unit.count

    def uri(self, clip: Clip) -> str:
        """Where the clip's video is."""
        return self.videos[clip.video_id].plan.source.uri

    def start(self, clip: Clip, shard_id: str, node: Node, num_bytes: int) -> None:
        """Reserve room in a node's store for the frames of a clip that is decoded from now on."""
        self.shards[shard_id].is_started = True
        self.clips[clip] = ClipState(shard_id, node, num_bytes)
        node.frames_bytes += num_bytes

    def decoded(self, clip: Clip, num_bytes: int) -> None:
        """Correct the reservation to the size of the frames."""
        state = self.clips[clip]
        state.node.frames_bytes += num_bytes - state.num_bytes
        state.num_bytes = num_bytes

    def encoded(self, clip: Clip, node: Node, num_bytes: int) -> Node:
        """Account for tokens in place of frames. Returns the node whose store has room again."""
        state = self.clips[clip]
        before = state.node
        before.frames_bytes -= state.num_bytes
        state.node, state.num_bytes, state.is_encoded = node, num_bytes, True
        self.token_bytes += num_bytes
        self.shards[state.shard_id].outstanding -= 1
        return before

    def drop(self, clip: Clip) -> ClipState:
        """Remove a clip's frames or tokens. If they were tokens, the shard lacks the clip again."""
        state = self.clips.pop(clip)
        if state.is_encoded:
            self.token_bytes -= state.num_bytes
            self.shards[state.shard_id].outstanding += 1
        else:
            state.node.frames_bytes -= state.num_bytes
        return state

    def give_up(self, clip: Clip, failed: FailedRange) -> ClipState:
        """Record a clip as failed."""
        state = self.drop(clip)
        shard = self.shards[state.shard_id]
        shard.outstanding -= 1
        shard.failures[clip] = failed
        return state

    def lost_with(self, node: Node) -> list[Clip]:
        """Clips whose frames or tokens were lost with a node, except those that a worker may have fetched already.

        A worker that has not fetched them reports it.
        """
        return [
            clip
            for clip, state in self.clips.items()
            if state.node is node
            and (not self.shards[state.shard_id].writer if state.is_encoded else clip in node.waiting)
        ]

    def close(self, shard_id: str) -> Shard:
        """Remove a shard that is written, with its clips."""
        shard = self.shards.pop(shard_id)
        for clip in shard.clips:
            self.token_bytes -= self.clips.pop(clip).num_bytes
        for unit in shard.units:
            owed = self.videos[unit.video_id]
            owed.unsettled -= unit.count
            if not owed.unsettled:
                del self.videos[unit.video_id]
        return shard


def joined(failures: Iterable[FailedRange]) -> tuple[FailedRange, ...]:
    """Failures in order, neighbouring ranges of the same class joined: a damaged hour is one row and not sixty."""
    rows: list[FailedRange] = []
    for failed in sorted(failures, key=lambda failed: (failed.video_id, failed.start_ns)):
        last = rows[-1] if rows else None
        if last is not None and _continues(last, failed):
            rows[-1] = replace(last, end_ns=failed.end_ns, attempts=max(last.attempts, failed.attempts))
        else:
            rows.append(failed)
    return tuple(rows)


def _continues(last: FailedRange, failed: FailedRange) -> bool:
    return (last.video_id, last.failure, last.end_ns) == (failed.video_id, failed.failure, failed.start_ns)


def span_of(units: Sequence[ShardUnit]) -> Unit:
    """Consecutive units of one video as one."""
    first = units[0].unit
    return Unit(first.video_id, first.first, sum(unit.count for _, unit in units))
