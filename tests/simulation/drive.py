"""A run in virtual time, from its first driver to its last: what a seed leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from pipeline.engine import commands, events
from pipeline.engine.events import Event
from pipeline.engine.policy import DRAIN_S, Policy
from pipeline.engine.scheduler import Scheduler
from pipeline.inputs.named import Input
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import ShardUnit, Unit
from tests.simulation.cluster import Cluster
from tests.simulation.scenario import Ending, NodeSpec, Scenario, draw
from tests.simulation.store import Stored, check
from tests.simulation.watch import Watch

MOST_S = 4 * 3600.0
MOST_STEPS = 100_000


class Life:
    """One driver: its scheduler, and the cluster as long as it lives."""

    def __init__(self, scenario: Scenario, stored: Stored, rng: Random, start_s: float) -> None:
        self.scenario, self.stored, self.rng = scenario, stored, rng
        self.scheduler = Scheduler(scenario.policy, stored.videos())
        self.cluster = Cluster(scenario, stored, rng, start_s)
        self.watch = Watch(self.cluster, self.scheduler)
        self.start_s = start_s
        self.finished: commands.Finish | None = None
        self._owed: list[list[events.Pending | events.Retry]] = []
        """Planned work, whole shards, and what is to be tried again."""
        self._handed_out: list[events.Pending | events.Retry] = []
        planned = {row.video.source.uri for row in stored.rows}
        self._to_find = [source for source in scenario.inputs if source.uri not in planned]

    def run(self, ending: Ending, after_s: float, retry: bool) -> None:
        """Until the run finishes by itself, or its driver dies."""
        self._owed = self._owed_work(retry)
        for spec in self.rng.sample(self.scenario.nodes, len(self.scenario.nodes)):
            self._plan_node(spec)
        self.cluster.at(self.start_s, self.cluster.hear, events.Tick())
        self.cluster.at(self.start_s + self.scenario.tick_s, self._tick)
        if self.scenario.fault_share:
            for _ in range(3):
                self.cluster.at(self.start_s + self.rng.expovariate(1 / 30), self.cluster.drop_object)
        if ending == "stop":
            self.cluster.at(self.start_s + after_s, self.cluster.hear, events.Stop("interrupted"))
        stopped_s = None
        for _ in range(MOST_STEPS):
            event = self.cluster.step()
            lived_s = self.cluster.now_s - self.start_s
            if ending == "death" and lived_s > after_s:
                return
            check(lived_s < MOST_S, "the run does not end")
            if event is None:
                continue
            if isinstance(event, events.Stop):
                stopped_s = self.cluster.now_s
            self.handle(event)
            if self.finished is not None:
                slow_s = DRAIN_S + 2 * self.scenario.tick_s + (self.scenario.sleep_s[1] - self.scenario.sleep_s[0])
                check(stopped_s is None or self.cluster.now_s - stopped_s <= slow_s, "a stop takes long")
                self._end(ending)
                return
        check(False, "the run does not end: too many events")

    def handle(self, event: Event) -> None:
        if isinstance(event, events.InputsFound):
            handed_out, self._handed_out = self._handed_out, []
            for owed in handed_out:
                if isinstance(owed, events.Pending):
                    self.watch.plan(owed.units)
                self.handle(owed)
        self.watch.hear(event)
        wanted = self.scheduler.handle(event, self.cluster.now_s)
        for i, command in enumerate(wanted):
            if isinstance(command, commands.AppendPlan):
                self.stored.append(command)
            elif isinstance(command, commands.FindInputs):
                self._find(command.count)
            elif isinstance(command, commands.Finish):
                check(i == len(wanted) - 1, "something is wanted after the end")
                self.finished = command
        self.watch.see(wanted)

    def _end(self, ending: Ending) -> None:
        assert self.finished is not None
        self.stored.save()
        if self.finished.error is not None:
            self.watch.check_error(self.finished.error)
        elif ending == "finish":
            self.watch.check_end()

    def _owed_work(self, retry: bool) -> list[list[events.Pending | events.Retry]]:
        """What an earlier life left to be done, and, where asked, what it recorded as failed."""
        shards: dict[str, list[events.Pending | events.Retry]] = {}
        for video, units in self.stored.pending().values():
            by_shard: dict[str, list[ShardUnit]] = {}
            for unit in units:
                by_shard.setdefault(unit.shard_id, []).append(unit)
            for shard_id, parts in by_shard.items():
                shards.setdefault(shard_id, []).append(events.Pending(video, tuple(parts)))
        owed = list(shards.values())
        videos = self.stored.videos()
        for clip in sorted(self.stored.failed_clips()) if retry else ():
            unit = Unit(clip.video_id, clip.index, 1)
            owed.append([events.Retry(videos[clip.video_id], (unit,), self.stored.times_planned(clip))])
        return owed

    def _plan_node(self, spec: NodeSpec) -> None:
        """Nodes come and go at their own times, whatever driver there is."""
        now_s = self.start_s
        if spec.down_s is None or spec.down_s > now_s + 10:  # else it is not there for this driver
            self.cluster.at(max(spec.up_s, now_s), self.cluster.node_up, spec)
            if spec.down_s is not None:
                self.cluster.at(spec.down_s, self.cluster.node_down, spec)
        if spec.back_s is not None:
            other = replace(spec, name=f"{spec.name}-again", down_s=None)
            self.cluster.at(max(spec.back_s, now_s), self.cluster.node_up, other)

    def _tick(self) -> Event | None:
        self.cluster.at(self.cluster.now_s + self.scenario.tick_s, self._tick)
        return None if self.cluster.sleeps() else events.Tick()

    def _find(self, count: int) -> None:
        few = self.rng.randint(1, count)
        chunk: list[Input] = []
        if self._owed:
            handed_out, self._owed = self._owed[:few], self._owed[few:]
            self._handed_out = [event for shard in handed_out for event in shard]
            if self.rng.random() < 0.5:
                self._handed_out = _by_video(self._handed_out)
        else:
            chunk, self._to_find = self._to_find[:few], self._to_find[few:]
        is_last = not (self._to_find or self._owed)
        self.cluster.tell(events.InputsFound(tuple(chunk), is_last), self.rng.random() * 0.2)


def _by_video(owed: list[events.Pending | events.Retry]) -> list[events.Pending | events.Retry]:
    """One event a video, of whatever shards: with gaps where clips between are done."""
    units: dict[str, list[ShardUnit]] = {}
    videos: dict[str, PlannedVideo] = {}
    for event in owed:
        if isinstance(event, events.Pending):
            videos[event.video.source.video_id] = event.video
            units.setdefault(event.video.source.video_id, []).extend(event.units)
    joined = [
        events.Pending(videos[name], tuple(sorted(parts, key=lambda part: part.unit.first)))
        for name, parts in units.items()
    ]
    return [*joined, *(event for event in owed if isinstance(event, events.Retry))]


def simulate(seed: int, change: Callable[[Policy], Policy] = lambda policy: policy) -> Stored:
    """Run the scenario of a seed to its end.

    Raises:
        ViolationError: Something happened that must not; or whatever the scheduler raised.
    """
    scenario = draw(seed)
    scenario.policy = change(scenario.policy)
    rng = Random(seed)
    stored = Stored()
    now_s = 0.0
    lives: list[tuple[Ending, float, bool]] = [(ending, after_s, False) for ending, after_s in scenario.endings]
    lives += [("finish", 0.0, False)] + [("finish", 0.0, True)] * scenario.retries
    for _ in range(len(lives) + 6):
        ending, after_s, retry = lives[0]
        if retry and rng.random() < 0.5:
            scenario.decode_harm.clear()
            scenario.encode_harm.clear()
        life = Life(scenario, stored, rng, now_s)
        life.run(ending, after_s, retry)
        now_s = life.cluster.now_s
        has_failed = life.finished is not None and life.finished.error is not None
        if ending == "death":
            life.cluster.die()
        stored.save() if ending != "death" else stored.crash()
        if has_failed:
            now_s += 15  # and then somebody starts it again
        else:
            lives.pop(0)
        if not lives:
            break
    check(not lives, "the run ends with an error again and again")
    stored.check_complete(scenario.videos)
    return stored
