"""What a run folder still lacks of what the user asks for: inputs to scan, shards to make, clips to try again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.engine.messages import Pending, Retry
from pipeline.plan.settled import consecutive
from pipeline.plan.units import Clip, ShardUnit
from pipeline.shards.run_folder import RunState
from pipeline.values import FailedRange, Input, PlannedVideo


@dataclass(frozen=True, slots=True)
class Sorted:
    """The inputs of a run, against its plan."""

    unknown: tuple[Input, ...]
    """To be scanned."""
    located: dict[str, str]
    """Where the videos of the plan are today, by id."""
    unreadable: tuple[FailedRange, ...]
    """Not recorded yet."""


def sort_inputs(found: Iterable[Input | FailedRange], state: RunState, *, retry_failed: bool) -> Sorted:
    """Tell inputs that are planned from those that are not, by address, size and time of the last change."""
    unknown, unreadable = [], []
    located: dict[str, str] = {}
    for item in found:
        if isinstance(item, FailedRange):
            if item.video_id not in state.plan.videos:
                unreadable.append(item)
            continue
        video_id = state.plan.addresses.get((item.uri, item.stamp)) if item.stamp else None
        video = None if video_id is None else state.plan.videos.get(video_id)
        if video is None or (retry_failed and _failed_whole(video)):
            unknown.append(item)
        else:
            located.setdefault(video.source.video_id, item.uri)
    return Sorted(tuple(unknown), located, tuple(unreadable))


def _failed_whole(video: PlannedVideo) -> bool:
    return bool(video.failures) and not video.num_clips


@dataclass(frozen=True, slots=True)
class Owed:
    """Work that the plan holds already, whole shards together."""

    events: tuple[Pending | Retry, ...]
    video_ids: frozenset[str]
    """The videos that must be at hand for it."""


def owed_work(state: RunState, unfinished: Sequence[str], *, retry_failed: bool) -> list[Owed]:
    """Shards that are not committed and, where it is asked for, clips that are recorded as failed."""
    found = [_pending(state, shard_id) for shard_id in unfinished]
    if retry_failed:
        attempts = state.plan.attempts_of(state.settled.lost.keys())
        found += [_retry(state, video_id, clips, attempts) for video_id, clips in state.settled.lost.items()]
    return [owed for owed in found if owed.events]


def at(owed: Owed, located: dict[str, str]) -> Iterable[Pending | Retry]:
    """The events with the addresses at which the videos are today."""
    for event in owed.events:
        source = event.video.source
        moved = replace(source, uri=located.get(source.video_id, source.uri))
        yield replace(event, video=replace(event.video, source=moved))


def _pending(state: RunState, shard_id: str) -> Owed:
    units = state.plan.shards[shard_id]
    by_video: dict[str, list[ShardUnit]] = {}
    for unit in units:
        by_video.setdefault(unit.video_id, []).append(ShardUnit(shard_id, unit))
    events = tuple(Pending(state.plan.videos[video_id], tuple(parts)) for video_id, parts in by_video.items())
    return Owed(events, frozenset(by_video))


def _retry(state: RunState, video_id: str, clips: set[int], attempts: Mapping[Clip, int]) -> Owed:
    by_generation: dict[int, list[int]] = {}
    for index in clips:
        by_generation.setdefault(attempts[Clip(video_id, index)], []).append(index)
    video = state.plan.videos[video_id]
    events = tuple(
        Retry(video, tuple(consecutive(video_id, chosen)), generation)
        for generation, chosen in sorted(by_generation.items())
    )
    return Owed(events, frozenset({video_id}))
