"""A large cluster without faults, in virtual time: carries out the scheduler's commands, and takes their time.

A call's duration is drawn from a seeded distribution with a long tail; answers arrive a moment after the work ended. No
pixel, process or file is involved, so that what is measured is the scheduler.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from pipeline.engine import commands, events
from pipeline.engine.commands import Command
from pipeline.engine.events import Event
from pipeline.inputs.named import Input, VideoSource
from pipeline.plan.planned_video import PlannedVideo

LATENCY_S = 0.005
"""From a driver to a worker, and back."""
SLOW_SHARE, SLOW_TIMES = 0.01, 10.0
"""So many calls take so many times as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Videos of equal length."""

    videos: int
    clips: int
    """Of each video."""
    clip_frames: int
    clip_bytes: int
    """Frames of a clip."""
    token_bytes: int
    """Tokens of a clip."""

    def video(self, source: Input) -> PlannedVideo:
        """What scanning an input finds."""
        instants = self.clips * self.clip_frames
        found = VideoSource(video_id=f"{source.uri:0>32}", uri=source.uri, size_bytes=source.size_bytes)
        return PlannedVideo(source=found, num_clips=self.clips, num_instants=instants)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Mean time of each call."""

    start: float = 20.0
    scan: float = 0.3
    decode: float = 2.0
    encode: float = 0.1
    write: float = 0.5


@dataclass(slots=True)
class Stage:
    """How busy one kind of worker was."""

    workers: int = 0
    busy_s: float = 0.0

    def share(self, wall_s: float) -> float:
        """Of the time that its workers had."""
        return self.busy_s / (self.workers * wall_s) if self.workers and wall_s > 0 else 0.0


@dataclass(slots=True)
class SimulatedCluster:
    """Workers that do one call after another, and the events that come of it."""

    corpus: Corpus
    seconds: Seconds
    rng: Random
    now_s: float = 0.0
    stages: dict[str, Stage] = field(default_factory=lambda: {kind: Stage() for kind in ("decode", "encode", "write")})
    warm_s: float | None = None
    """When all workers were ready."""
    starting: int = 0
    kills: int = 0
    clips_written: int = 0
    is_all_begun: bool = False
    all_begun_s: float = 0.0
    """When the last video was begun: from then on there is not enough to do for all."""
    _events: list[tuple[float, int, Event]] = field(default_factory=list)
    _count: int = 0
    _found: int = 0
    _begun: int = 0
    _free_s: dict[int, float] = field(default_factory=dict)
    _kind: dict[int, str] = field(default_factory=dict)

    def events(self) -> Iterator[Event]:
        """What happens next, with a tick each second."""
        next_tick_s = 0.0
        while True:
            if self._events and self._events[0][0] <= next_tick_s:
                self.now_s, _, event = heapq.heappop(self._events)
                yield event
            else:
                self.now_s, next_tick_s = next_tick_s, next_tick_s + 1.0
                yield events.Tick()

    def at(self, time_s: float, event: Event) -> None:
        """The driver hears of something at this time."""
        self._count += 1
        heapq.heappush(self._events, (time_s, self._count, event))

    def carry_out(self, command: Command) -> None:
        """Carry a command out."""
        match command:
            case commands.DecodeClip(worker=number, clip=clip):
                self._begun += clip.index == 0
                if self._begun == self.corpus.videos and not self.is_all_begun:
                    self.is_all_begun, self.all_begun_s = True, self.now_s
                    self._count_to_come(-1)
                self._work(number, self.seconds.decode, events.ClipDecoded(number, clip, self.corpus.clip_bytes))
            case commands.EncodeClip(worker=number, clip=clip):
                self._work(number, self.seconds.encode, events.ClipEncoded(number, clip, self.corpus.token_bytes))
            case commands.Scan(worker=number, input=source):
                self._work(number, self.seconds.scan, events.Scanned(number, source, self.corpus.video(source)))
            case commands.WriteShard(worker=number, shard_id=shard_id):
                self.clips_written += len(command.clips)
                self._work(number, self.seconds.write, events.ShardWritten(number, shard_id))
            case commands.AskProgress(worker=number):
                # Every call of this cluster goes on: it is a step further whenever it is asked.
                self._count += 1
                self.at(self.now_s + LATENCY_S, events.Progressed(number, self._count))
            case commands.FindInputs(count=count):
                count = min(count, self.corpus.videos - self._found)
                found = tuple(Input(uri=f"v{self._found + i}", size_bytes=1 << 20) for i in range(count))
                self._found += count
                self.at(self.now_s + LATENCY_S, events.InputsFound(found, self._found == self.corpus.videos))
            case commands.StartWorker(worker=number, kind=kind):
                self._kind[number] = kind
                self.stages[kind].workers += 1
                ready_s = self.now_s + self.seconds.start * (0.5 + self.rng.random())
                self._free_s[number] = ready_s
                self.starting += 1
                self.at(ready_s, events.WorkerReady(number))
            case commands.KillWorker():
                self.kills += 1
            case _:
                pass

    def start_to_measure(self) -> None:
        """All workers are ready: what was before does not count."""
        self.warm_s = self.now_s
        for stage in self.stages.values():
            stage.busy_s = 0.0
        self._count_to_come(1)

    def _count_to_come(self, sign: int) -> None:
        """Add, or take off, the work that was given before now and is done from now on."""
        for number, kind in self._kind.items():
            self.stages[kind].busy_s += sign * max(0.0, self._free_s[number] - self.now_s)

    def _work(self, number: int, mean_s: float, answer: Event) -> None:
        duration_s = self._draw(mean_s)
        self._free_s[number] = max(self._free_s[number], self.now_s + LATENCY_S) + duration_s
        if not self.is_all_begun:
            self.stages[self._kind[number]].busy_s += duration_s
        self.at(self._free_s[number] + LATENCY_S, answer)

    def _draw(self, mean_s: float) -> float:
        slow = SLOW_TIMES if self.rng.random() < SLOW_SHARE else 1.0
        return mean_s * (0.5 + self.rng.random()) * slow
