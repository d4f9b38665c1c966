"""Nodes, workers and objects in virtual time: carries out commands, and tells the driver what became of them."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pipeline.engine import commands, events
from pipeline.engine.commands import WorkerKind
from pipeline.engine.events import Event, Subject
from pipeline.errors import FailureClass
from pipeline.plan.units import Clip
from tests.simulation.scenario import CLIP_BYTES, Harm, NodeSpec, Scenario
from tests.simulation.store import Stored

Call = commands.Scan | commands.DecodeClip | commands.EncodeClip | commands.WriteShard
NODE_GONE = "its node is gone"
STAGE = {
    commands.Scan: "scan",
    commands.DecodeClip: "decode",
    commands.EncodeClip: "encode",
    commands.WriteShard: "write",
}


def subject_of(call: Call) -> Subject:
    if isinstance(call, commands.Scan):
        return call.input
    return call.shard_id if isinstance(call, commands.WriteShard) else call.clip


@dataclass(eq=False)
class SimWorker:
    number: int
    kind: WorkerKind
    node: SimNode
    cores: float
    gpus: float
    is_ready: bool = False
    is_dead: bool = False
    hangs: bool = False
    answers_while_hung: bool = False
    calls: deque[Call] = field(default_factory=deque)
    at_once: int = 1
    """Calls that it works on at the same time."""
    running: list[Call] = field(default_factory=list)
    step_s: dict[Call, tuple[float, float]] = field(default_factory=dict)
    """When a running call began, and the time between two of its steps, where it makes any."""
    stuck_steps: int = 0

    def steps(self, now_s: float) -> int:
        return sum(int((now_s - began_s) / step_s) for began_s, step_s in self.step_s.values())


@dataclass(eq=False)
class SimNode:
    spec: NodeSpec
    is_up: bool = True
    workers: dict[int, SimWorker] = field(default_factory=dict)

    def fits(self, cores: float, gpus: float) -> bool:
        taken_cores = sum(w.cores for w in self.workers.values())
        taken_gpus = sum(w.gpus for w in self.workers.values())
        return taken_cores + cores <= self.spec.cores + 1e-6 and taken_gpus + gpus <= self.spec.gpus + 1e-6


class Cluster:
    """One driver's workers on the nodes that are there."""

    def __init__(self, scenario: Scenario, stored: Stored, rng: Random, now_s: float) -> None:
        self.scenario, self.stored, self.rng, self.now_s = scenario, stored, rng, now_s
        self._heap: list[tuple[float, int, Callable[..., Event | None], tuple[Any, ...]]] = []
        self._count = 0
        self._last_told_s: dict[int, float] = {}
        self.nodes: dict[str, SimNode] = {}
        self.workers: dict[int, SimWorker] = {}
        self.objects: dict[Clip, SimNode] = {}
        """Where the frames or tokens of a clip lie, as far as the driver was told."""
        self.failed_starts = 0
        self.struck: dict[object, int] = {}
        """What went wrong, truly, while a subject was at work."""

    # Time.

    def at(self, time_s: float, action: Callable[..., Event | None], *arguments: object) -> None:
        self._count += 1
        heapq.heappush(self._heap, (time_s, self._count, action, arguments))

    def tell(self, event: Event, after_s: float = 0.0) -> None:
        """The driver hears of it after a while, and not while its machine sleeps; of one worker in its order."""
        told_s = self.now_s + after_s + self._latency()
        number = getattr(event, "worker", None)
        if number is not None:
            told_s = self._last_told_s[number] = max(told_s, self._last_told_s.get(number, 0.0))
        self.at(told_s, self.hear, event)

    def step(self) -> Event | None:
        """Let the next thing happen; what the driver hears of it, if anything."""
        self.now_s, _, action, arguments = heapq.heappop(self._heap)
        return action(*arguments)

    def hear(self, event: Event) -> Event | None:
        if self.sleeps():
            self.at(self.scenario.sleep_s[1], self.hear, event)
            return None
        return event

    def sleeps(self) -> bool:
        asleep_s, awake_s = self.scenario.sleep_s
        return asleep_s <= self.now_s < awake_s

    def _latency(self) -> float:
        return self.rng.expovariate(1 / self.scenario.latency_s)

    # Nodes.

    def node_up(self, spec: NodeSpec) -> None:
        self.nodes[spec.name] = SimNode(spec)
        self.tell(events.NodeUp(spec.name, spec.cores, spec.gpus, spec.store_bytes))

    def node_down(self, spec: NodeSpec) -> None:
        """Its workers are gone at once. The driver hears of them, or not, before or after it hears of the node."""
        node = self.nodes[spec.name]
        node.is_up = False
        told_s = self.rng.uniform(0, 5)
        for worker in node.workers.values():
            worker.is_dead = True
            if self.rng.random() < 0.5:
                self.tell(events.WorkerDied(worker.number, "crash", NODE_GONE), self.rng.uniform(0, 5))
        self.tell(events.NodeDown(spec.name), told_s)

    def die(self) -> None:
        """The driver is gone, and its workers with it; what was being written may just have been committed."""
        for worker in self.workers.values():
            call = worker.calls[0] if worker.calls else None
            is_written = self.rng.random() < 0.3 and not worker.is_dead and not self._is_disk_full()
            if is_written and isinstance(call, commands.WriteShard) and not self._lost_inputs(call):
                self.stored.commit(call.shard_id, call.clips, call.failures)

    def drop_object(self) -> None:
        """A store loses an object. Who reads it finds out."""
        if self.objects:
            del self.objects[self.rng.choice(list(self.objects))]

    def strike(self, subject: object) -> None:
        self.struck[subject] = self.struck.get(subject, 0) + 1

    # Commands.

    def start(self, command: commands.StartWorker) -> None:
        node = self.nodes[command.node]
        at_once = self.scenario.policy.encode_calls_at_once if command.kind == "encode" else 1
        worker = SimWorker(command.worker, command.kind, node, command.cores, command.gpus, at_once=at_once)
        self.workers[command.worker] = node.workers[command.worker] = worker
        after_s = min(self._draw("start"), 0.8 * self.scenario.policy.limits.start_s)
        if not node.is_up:
            worker.is_dead = True
            if self.rng.random() < 0.5:
                self.tell(events.WorkerDied(worker.number, "crash", NODE_GONE), after_s)
        elif command.kind in node.spec.refuses:
            self.at(self.now_s + after_s, self._refuse, worker)
        elif self._goes_wrong():
            self.failed_starts += 1
            if self.rng.random() < 0.5:
                self.at(self.now_s + after_s, self._die, worker, "crash")
            else:
                worker.hangs = True
        else:
            self.at(self.now_s + after_s, self._ready, worker)

    def kill(self, number: int) -> None:
        self._remove_dead(self.workers[number])

    def give(self, call: Call) -> None:
        worker = self.workers[call.worker]
        worker.calls.append(call)
        if len(worker.running) < worker.at_once and not worker.is_dead:
            worker.running.append(call)
            self.at(self.now_s + self._latency(), self._begin, worker, call)

    def ask(self, number: int) -> None:
        worker = self.workers[number]
        if worker.is_dead or (worker.hangs and not worker.answers_while_hung):
            return
        self.tell(events.Progressed(number, worker.stuck_steps if worker.hangs else worker.steps(self.now_s)))

    # What workers do.

    def _ready(self, worker: SimWorker) -> None:
        if not worker.is_dead:
            worker.is_ready = True
            self.tell(events.WorkerReady(worker.number))

    def _refuse(self, worker: SimWorker) -> None:
        if not worker.is_dead:
            worker.hangs = True
            self.tell(events.WorkerRefused(worker.number, "another version"))

    def _begin(self, worker: SimWorker, call: Call) -> None:
        if worker.is_dead or worker.hangs:
            return
        lost = self._lost_inputs(call)
        if lost:
            event = events.InputLost(worker.number, subject_of(call), lost)
            self.at(self.now_s + self._latency(), self._end, worker, call, event)
            return
        seconds = self._seconds(worker, call)
        harm = self._harm(call)
        if harm is None and self._goes_wrong():
            harm = Harm(self.rng.choice(("kill", "hang", "error")), self.rng.choice(("io", "crash", "out_of_memory")))
        if harm is None:
            self.at(self.now_s + seconds, self._succeed, worker, call)
            return
        self.strike(subject_of(call))
        self.at(self.now_s + self.rng.random() * min(seconds, 20), self._suffer, worker, call, harm)

    def _seconds(self, worker: SimWorker, call: Call) -> float:
        """How long a call takes: well below its limit, or with progress."""
        limits = self.scenario.policy.limits
        limit_s = {"scan": limits.scan_s, "decode": limits.decode_s, "encode": limits.encode_s, "write": limits.write_s}
        stage = STAGE[type(call)]
        slow_s = self.scenario.slow_scans.get(call.input.uri) if isinstance(call, commands.Scan) else None
        if slow_s is None and self.scenario.fault_share and self.rng.random() < 0.02:
            slow_s = self.rng.uniform(1, 8) * limit_s[stage]
        if slow_s is not None:
            worker.step_s[call] = self.now_s, self.rng.uniform(0.02, 0.35) * limit_s[stage]
            return slow_s
        return min(self._draw(stage) + self._transfer_s(worker, call), 0.4 * limit_s[stage])

    def _transfer_s(self, worker: SimWorker, call: Call) -> float:
        """Fetching what lies on other nodes, one object after another."""
        if isinstance(call, commands.Scan | commands.DecodeClip):
            return 0.0
        clips = call.clips if isinstance(call, commands.WriteShard) else (call.clip,)
        return self.scenario.transfer_s * sum(self.objects[clip] is not worker.node for clip in clips)

    def _succeed(self, worker: SimWorker, call: Call) -> None:
        if worker.is_dead or worker.hangs:
            return
        number = worker.number
        if isinstance(call, commands.Scan):
            self._end(worker, call, events.Scanned(number, call.input, self.scenario.videos[call.input.uri]))
        elif isinstance(call, commands.DecodeClip):
            self._end(
                worker, call, events.ClipDecoded(number, call.clip, self.rng.choice((CLIP_BYTES, CLIP_BYTES // 3)))
            )
        elif isinstance(call, commands.EncodeClip):
            self._end(
                worker, call, events.ClipEncoded(number, call.clip, int(CLIP_BYTES * self.rng.uniform(0.02, 0.2)))
            )
        elif self._is_disk_full():
            self.strike(call.shard_id)
            self._end(worker, call, events.CallFailed(number, call.shard_id, "io", "no space left"))
        else:
            self.stored.commit(call.shard_id, call.clips, call.failures)
            self._end(worker, call, events.ShardWritten(number, call.shard_id))

    def _suffer(self, worker: SimWorker, call: Call, harm: Harm) -> None:
        if worker.is_dead or worker.hangs:
            return
        if harm.kind == "error":
            self._end(worker, call, events.CallFailed(worker.number, subject_of(call), harm.failure, harm.failure))
            return
        if isinstance(call, commands.WriteShard) and not self._is_disk_full() and self.rng.random() < 0.3:
            self.stored.commit(call.shard_id, call.clips, call.failures)
        if harm.kind == "kill":
            self._die(worker, "crash")
        else:
            worker.stuck_steps = worker.steps(self.now_s)
            worker.hangs, worker.answers_while_hung = True, self.rng.random() < 0.5

    def _end(self, worker: SimWorker, call: Call, event: Event) -> None:
        if worker.is_dead or worker.hangs:
            return
        worker.calls.remove(call)
        worker.running.remove(call)
        worker.step_s.pop(call, None)
        self.tell(event)
        waiting = next((other for other in worker.calls if other not in worker.running), None)
        if waiting is not None:
            worker.running.append(waiting)
            self._begin(worker, waiting)

    def _die(self, worker: SimWorker, failure: FailureClass) -> None:
        if not worker.is_dead:
            self._remove_dead(worker)
            self.tell(events.WorkerDied(worker.number, failure, "its process is gone"))

    def _remove_dead(self, worker: SimWorker) -> None:
        worker.is_dead = True
        worker.node.workers.pop(worker.number, None)

    # Chance.

    def _goes_wrong(self) -> bool:
        scenario = self.scenario
        if scenario.faults and self.rng.random() < scenario.fault_share:
            scenario.faults -= 1
            return True
        return False

    def _draw(self, stage: str) -> float:
        return self.rng.expovariate(1 / self.scenario.mean_s[stage])

    def _harm(self, call: Call) -> Harm | None:
        if isinstance(call, commands.Scan):
            return self.scenario.scan_harm.get(call.input.uri)
        if isinstance(call, commands.WriteShard):
            return None
        harms = self.scenario.decode_harm if isinstance(call, commands.DecodeClip) else self.scenario.encode_harm
        return harms.get(call.clip)

    def _lost_inputs(self, call: Call) -> tuple[Clip, ...]:
        if isinstance(call, commands.Scan | commands.DecodeClip):
            return ()
        clips = call.clips if isinstance(call, commands.WriteShard) else (call.clip,)
        return tuple(c for c in clips if c not in self.objects or not self.objects[c].is_up)

    def _is_disk_full(self) -> bool:
        start_s, end_s = self.scenario.disk_full_s
        return start_s <= self.now_s < end_s
