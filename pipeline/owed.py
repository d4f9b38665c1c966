"""What a run folder still lacks of what the user asks for: inputs to scan, shards to make, clips to try again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from pipeline.engine.events import Pending, Retry
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input
from pipeline.plan.plan import Plan, Videos
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.settled import consecutive
from pipeline.plan.units import Clip, ShardUnit, Unit
from pipeline.shards.run_folder import RunState

BATCH = 100_000


class Located:
    """Where videos are today. A video of the plan that is where it was takes one byte."""

    def __init__(self, videos: Videos) -> None:
        self._videos = videos
        self._is_in_place = np.zeros(len(videos.row), np.bool_)
        self._elsewhere: dict[str, str] = {}

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self.uri(video_id) is not None

    def add(self, number: int, row: int, uri: str) -> None:
        """An address of a video of the plan, and the row of the plan that holds it."""
        if self._videos.row[number] == row:
            self._is_in_place[number] = True
        else:
            self.put(self._videos.names[number], uri)

    def put(self, video_id: str, uri: str) -> None:
        """The address of any video; the first one stays."""
        self._elsewhere.setdefault(video_id, uri)

    def uri(self, video_id: str) -> str | None:
        """Where a video is: where it was planned, if it is there; None: that is not known."""
        number = self._videos.number(video_id)
        if number is not None and self._is_in_place[number]:
            return self._videos.uri(number)
        return self._elsewhere.get(video_id)

    def elsewhere(self, video_id: str) -> str | None:
        """Where a video is that is not where it was planned."""
        uri = self._elsewhere.get(video_id)
        number = None if uri is None else self._videos.number(video_id)
        return None if number is not None and self._is_in_place[number] else uri

    def has_all(self, numbers: Sequence[int]) -> bool:
        """Whether all these videos of the plan are located."""
        return bool(self._is_in_place[numbers].all()) or all(self._videos.names[n] in self for n in numbers)


@dataclass(frozen=True, slots=True)
class Sorted:
    """The inputs of a run, against its plan."""

    unknown: tuple[Input, ...]
    """To be scanned."""
    located: Located
    """Where the videos of the plan are today."""
    unreadable: tuple[FailedRange, ...]
    """Not recorded yet."""


def sort_inputs(found: Iterable[Input | FailedRange], state: RunState, *, retry_failed: bool) -> Sorted:
    """Tell inputs that are planned from those that are not, by address, size and time of the last change."""
    plan = state.plan
    unknown, unreadable = [], []
    located = Located(plan.videos)
    failed = set(_failed_whole(plan.videos)) if retry_failed else set()
    found = iter(found)
    while batch := list(islice(found, BATCH)):
        unreadable += [f for f in batch if isinstance(f, FailedRange) and f.video_id not in plan.videos]
        inputs = [item for item in batch if isinstance(item, Input)]
        for item, row in zip(inputs, plan.addresses.rows([(i.uri, i.stamp) for i in inputs]), strict=True):
            number = -1 if row < 0 or not item.stamp else plan.videos.number_in(row)
            if number < 0 or number in failed:
                unknown.append(item)
            else:
                located.add(number, row, item.uri)
    return Sorted(tuple(unknown), located, tuple(unreadable))


def _failed_whole(videos: Videos) -> list[int]:
    failures = videos.with_failures()
    numbers: list[int] = failures[videos.column("num_clips")[failures] == 0].tolist()
    return numbers


class Owed:
    """Work that the plan holds already: shards that are not committed, and clips to be tried again.

    It becomes events a few shards at a time: all those of a shard together, so that none is written in parts.

    Args:
        plan: The plan.
        shard_ids: Shards that are not committed.
        retries: Clips to be tried again.
    """

    def __init__(self, plan: Plan, shard_ids: Iterable[str] = (), retries: Iterable[Retry] = ()) -> None:
        self._plan = plan
        self._shard_ids, self._retries = deque(shard_ids), deque(retries)

    def __len__(self) -> int:
        return len(self._shard_ids) + len(self._retries)

    def split(self, located: Located) -> tuple[Owed, Owed]:
        """What can be done with the videos that are located, and the rest."""
        shards: tuple[list[str], list[str]] = [], []
        for shard_id in self._shard_ids:
            shards[not located.has_all(self._plan.shards.videos(shard_id).tolist())].append(shard_id)
        retries: tuple[list[Retry], list[Retry]] = [], []
        for retry in self._retries:
            retries[retry.video.source.video_id not in located].append(retry)
        return Owed(self._plan, shards[0], retries[0]), Owed(self._plan, shards[1], retries[1])

    @property
    def video_ns(self) -> int:
        """How much video it is."""
        videos, shards = self._plan.videos, self._plan.shards
        clip_ns = (videos.column("end_ns") - videos.column("start_ns")) / np.maximum(videos.column("num_clips"), 1)
        planned = sum(float((clip_ns[shards.videos(s)] * shards.counts(s)).sum()) for s in self._shard_ids)
        again = sum(_clip_ns(retry.video) * unit.count for retry in self._retries for unit in retry.units)
        return round(planned + again)

    def take(self, clips: int, located: Located) -> list[Pending | Retry]:
        """Take whole shards, of at least so many clips if they are there, with the addresses of today."""
        taken: list[tuple[str, list[Unit]]] = []
        events: list[Pending | Retry] = []
        while self._shard_ids and clips > 0:
            shard_id = self._shard_ids.popleft()
            units = self._plan.shards[shard_id]
            taken.append((shard_id, units))
            clips -= sum(unit.count for unit in units)
        videos = self._plan.videos.by_id({unit.video_id for _, units in taken for unit in units})
        for shard_id, units in taken:
            events += _pending(shard_id, units, videos)
        while self._retries and clips > 0:
            retry = self._retries.popleft()
            events.append(retry)
            clips -= sum(unit.count for unit in retry.units)
        return [_moved(event, located) for event in events]


def owed_work(state: RunState, unfinished: Sequence[str], *, retry_failed: bool) -> Owed:
    """Shards that are not committed and, where it is asked for, clips that are recorded as failed."""
    retries: list[Retry] = []
    if retry_failed:
        attempts = state.plan.attempts_of(state.settled.lost.keys())
        for video_id, clips in state.settled.lost.items():
            retries += _retries(state.plan.videos[video_id], clips, attempts)
    return Owed(state.plan, unfinished, retries)


def _clip_ns(video: PlannedVideo) -> float:
    return (video.end_ns - video.start_ns) / max(1, video.num_clips)


def _moved(event: Pending | Retry, located: Located) -> Pending | Retry:
    source = event.video.source
    uri = located.elsewhere(source.video_id)
    return event if uri is None else replace(event, video=replace(event.video, source=replace(source, uri=uri)))


def _pending(shard_id: str, units: Sequence[Unit], videos: Mapping[str, PlannedVideo]) -> list[Pending]:
    by_video: dict[str, list[ShardUnit]] = {}
    for unit in units:
        by_video.setdefault(unit.video_id, []).append(ShardUnit(shard_id, unit))
    return [Pending(videos[video_id], tuple(parts)) for video_id, parts in by_video.items()]


def _retries(video: PlannedVideo, clips: set[int], attempts: Mapping[Clip, int]) -> list[Retry]:
    video_id = video.source.video_id
    by_generation: dict[int, list[int]] = {}
    for index in clips:
        by_generation.setdefault(attempts[Clip(video_id, index)], []).append(index)
    return [
        Retry(video, tuple(consecutive(video_id, chosen)), generation)
        for generation, chosen in sorted(by_generation.items())
    ]
