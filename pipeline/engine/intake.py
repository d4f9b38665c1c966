"""Inputs before they are planned: found, scanned in any order, planned in the order of the inputs."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator

from pipeline.inputs.named import Input
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import ShardUnit, Unit

PATIENCE_S = 5.0
"""How long a scanned video waits for those before it that are still being scanned."""


class ShardPacker:
    """Fills shards with consecutive units, whole ones where there is room."""

    def __init__(self, shard_clips: int, unit_clips: int) -> None:
        self._shard_clips, self._unit_clips = shard_clips, unit_clips
        self._shard_id = ""
        self._room = 0

    @property
    def open_shard(self) -> str | None:
        """The shard to which further units may be added."""
        return self._shard_id if self._room else None

    def close(self) -> None:
        """Add no more units to the open shard."""
        self._room = 0

    def pack(self, unit: Unit, generation: int = 0) -> Iterator[ShardUnit]:
        """Cut consecutive clips of a video into what goes into each shard."""
        first, left = unit.first, unit.count
        while left:
            if left > self._room and self._room < self._unit_clips:
                self._room = self._shard_clips
                self._shard_id = shard_id(Unit(unit.video_id, first, left), generation)
            count = left if left <= self._room else self._room // self._unit_clips * self._unit_clips or self._room
            yield ShardUnit(self._shard_id, Unit(unit.video_id, first, count))
            first, left, self._room = first + count, left - count, self._room - count


def shard_id(first: Unit, generation: int) -> str:
    """16 hex digits. A clip is in one shard of each generation, so a shard's first clip names it."""
    text = f"{first.video_id} {first.first} {generation}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Intake:
    """Inputs that are not planned yet."""

    def __init__(self) -> None:
        self.inputs: deque[Input] = deque()
        """Found, not yet given to a decoder; those to be tried again first."""
        self.has_more = True
        """Whether further inputs can be found."""
        self.is_asked = False
        self._order: deque[Input] = deque()
        """All inputs found and not planned, in the order in which they are planned."""
        self._scanned: OrderedDict[Input, deque[tuple[float, PlannedVideo]]] = OrderedDict()
        """Scan results with their times, the first scanned first. The same input may be named twice."""
        self._passed_over: Counter[Input] = Counter()
        """Slow inputs that later ones overtook; planned as soon as they are scanned."""

    def add(self, inputs: tuple[Input, ...], is_last: bool) -> None:
        """Add inputs that were found."""
        self.inputs += inputs
        self._order += inputs
        self.is_asked, self.has_more = False, not is_last

    def scanned(self, source: Input, video: PlannedVideo, now_s: float) -> None:
        """Take in the scan result of an input, or its failure."""
        self._scanned.setdefault(source, deque()).append((now_s, video))
        if source in self._passed_over:
            self._passed_over -= Counter([source])
            self._order.appendleft(source)

    @property
    def is_empty(self) -> bool:
        """Whether every input is planned."""
        return not (self._order or self._passed_over or self.has_more)

    def take_planned(self, now_s: float) -> Iterator[tuple[Input, PlannedVideo]]:
        """Scanned videos in the order of the inputs; one whose scan takes long is overtaken."""
        while self._order and self._scanned:
            source = self._order[0]
            if source in self._scanned:
                self._order.popleft()
                videos = self._scanned[source]
                yield source, videos.popleft()[1]
                if not videos:
                    del self._scanned[source]
                continue
            longest_s = now_s - next(iter(self._scanned.values()))[0][0]
            if longest_s < PATIENCE_S:
                return
            self._passed_over[self._order.popleft()] += 1
