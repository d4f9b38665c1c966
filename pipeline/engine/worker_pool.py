"""The workers of a run: who is there, what each is at, and who is late. Part of the scheduler."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pipeline.engine.attempts import START_ATTEMPTS, pause_s
from pipeline.engine.messages import NodeUp, StartWorker, Subject, WorkerKind
from pipeline.engine.placement import NodeResources, NodeWorkers, ResourceRequest, place
from pipeline.engine.policy import ASK_SHARE, CALLS_AHEAD, SLOW_START_S, STORE_SHARE, Limits
from pipeline.plan.units import Clip
from pipeline.values import Input

KINDS: tuple[WorkerKind, ...] = ("encode", "write", "decode")
"""In the order in which they are started."""


def room_by_calls() -> tuple[OrderedDict[int, None], ...]:
    """Encoders that have room, by how many calls they have."""
    return tuple(OrderedDict() for _ in range(CALLS_AHEAD))


@dataclass(slots=True)
class FailedStarts:
    """Starts of one kind of worker on one node that ended before it was ready, in rounds."""

    rounds: int = 0
    again_s: float = 0.0
    """No further one before; those that end meanwhile belong to the same round."""


@dataclass(slots=True, eq=False)
class Node:
    """A node and what lies in its object store."""

    name: str
    capacity: NodeResources
    credit_bytes: int
    """Most bytes of frames that may lie here."""
    free_cores: float
    """Cores that no worker claims."""
    frames_bytes: int = 0
    waiting: OrderedDict[Clip, float] = field(default_factory=OrderedDict)
    """Decoded clips that wait for an encoder, the oldest first."""
    blocked: OrderedDict[int, None] = field(default_factory=OrderedDict)
    """Decoders that wait until frames are taken away."""
    room: tuple[OrderedDict[int, None], ...] = field(default_factory=room_by_calls)
    present: Counter[WorkerKind] = field(default_factory=Counter)
    failed_starts: dict[WorkerKind, FailedStarts] = field(default_factory=dict)
    told_slow: set[WorkerKind] = field(default_factory=set)
    """Kinds of workers whose slow start was told."""
    recent_deaths: deque[tuple[float, Subject]] = field(default_factory=lambda: deque(maxlen=1000))
    """What was at work in workers that died here, and when."""


@dataclass(slots=True, eq=False)
class Worker:
    """A worker and its calls, the one at work first."""

    number: int
    kind: WorkerKind
    node: Node
    since_s: float
    """When it was started, began with its first call, or was last seen to progress."""
    cores: float = 0.0
    """What it claims."""
    is_ready: bool = False
    calls: deque[Subject] = field(default_factory=deque)
    steps: int = 0
    asked_s: float = 0.0

    def begin(self, subject: Subject, now_s: float) -> None:
        """Queue a call."""
        if not self.calls:
            self.since_s = self.asked_s = now_s
        self.calls.append(subject)

    def end(self, subject: Subject, now_s: float) -> bool:
        """A call has ended; False where the worker has no such call."""
        if subject not in self.calls:
            return False
        self.calls.remove(subject)
        self.since_s = self.asked_s = now_s
        self.steps = 0
        return True

    def limit_s(self, limits: Limits) -> float:
        """How long it may be without progress."""
        if not self.is_ready:
            return limits.start_s
        if self.kind == "decode":
            return limits.scan_s if isinstance(self.calls[0], Input) else limits.decode_s
        return limits.encode_s if self.kind == "encode" else limits.write_s


class WorkerPool:
    """Nodes and workers, kept as `place` wants them."""

    def __init__(self, request: ResourceRequest, limits: Limits) -> None:
        self._request, self._limits = request, limits
        self._last = 0
        self._of_kind: dict[WorkerKind, dict[int, Worker]] = {kind: {} for kind in KINDS}
        self._wanted: dict[str, NodeWorkers] = {}
        """As `place` says for the present nodes."""
        self.nodes: dict[str, Node] = {}
        self.workers: dict[int, Worker] = {}

    @property
    def store_credit_bytes(self) -> int:
        """Most bytes of tokens in all stores together."""
        return sum(node.credit_bytes for node in self.nodes.values())

    def count(self, kind: WorkerKind) -> int:
        """Workers of one kind, ready or not."""
        return len(self._of_kind[kind])

    def of_kind(self, kind: WorkerKind) -> Iterator[Worker]:
        """Workers of one kind, ready or not."""
        return iter(self._of_kind[kind].values())

    def is_up(self, node: Node) -> bool:
        """Whether a node is there; one that left and came again is another."""
        return self.nodes.get(node.name) is node

    def lacks(self) -> WorkerKind | None:
        """A kind of worker of which there is none, and no node that could hold one."""
        for kind in KINDS:
            if not self._of_kind[kind] and not any(wanted.number_of(kind) for wanted in self._wanted.values()):
                return kind
        return None

    def add_node(self, event: NodeUp) -> None:
        """A node came."""
        resources = NodeResources(cores=event.cores, gpus=event.gpus)
        self.nodes[event.node] = Node(event.node, resources, int(event.store_bytes * STORE_SHARE), float(event.cores))
        self._place()

    def remove_node(self, name: str) -> tuple[Node, list[Worker]]:
        """A node went, and its workers with it."""
        node = self.nodes.pop(name)
        gone = [worker for worker in self.workers.values() if worker.node is node]
        for worker in gone:
            self.remove(worker.number)
        self._place()
        return node, gone

    def remove(self, number: int) -> Worker | None:
        """A worker went; None where it is gone already."""
        worker = self.workers.pop(number, None)
        if worker is not None:
            del self._of_kind[worker.kind][number]
            worker.node.present[worker.kind] -= 1
            worker.node.free_cores = round(worker.node.free_cores + worker.cores, 4)
        return worker

    def rule_out(self, node: Node, kind: WorkerKind) -> None:
        """A node can hold no worker of this kind."""
        node.capacity = replace(node.capacity, unfit=node.capacity.unfit | {kind})
        self._place()

    def started(self, worker: Worker) -> None:
        """A worker is ready."""
        worker.is_ready = True
        worker.node.failed_starts.pop(worker.kind, None)
        worker.node.told_slow.discard(worker.kind)

    def start_failed(self, worker: Worker, now_s: float) -> bool:
        """A worker ended before it was ready. Returns whether its kind is ruled out on its node from now on."""
        failed = worker.node.failed_starts.setdefault(worker.kind, FailedStarts())
        if now_s >= failed.again_s:
            failed.rounds += 1
            failed.again_s = now_s + pause_s(failed.rounds)
        if failed.rounds < START_ATTEMPTS:
            return False
        self.rule_out(worker.node, worker.kind)
        return True

    def start_missing(self, now_s: float) -> Iterator[StartWorker]:
        """Start the workers that are missing, encoders first on all nodes."""
        for kind in KINDS:
            for name, wanted in self._wanted.items():
                node = self.nodes[name]
                if kind in node.failed_starts and now_s < node.failed_starts[kind].again_s:
                    continue
                for _ in range(wanted.number_of(kind) - node.present[kind]):
                    if not self._is_full(kind):
                        yield self._start(kind, node, wanted, now_s)

    def postpone_deadlines(self, gap_s: float) -> None:
        """Nobody could be heard for a while."""
        for worker in self.workers.values():
            worker.since_s += gap_s
            worker.asked_s += gap_s

    def late(self, now_s: float) -> list[Worker]:
        """Workers that made no progress for longer than they may."""
        return [worker for worker in self._at_work() if now_s - worker.since_s > worker.limit_s(self._limits)]

    def slow_starts(self, now_s: float) -> Iterator[Worker]:
        """A worker of each kind on each node that has been starting for long, once."""
        for worker in self.workers.values():
            node, is_slow = worker.node, not worker.is_ready and now_s - worker.since_s > SLOW_START_S
            if is_slow and worker.kind not in node.told_slow:
                node.told_slow.add(worker.kind)
                yield worker

    def to_be_asked(self, now_s: float) -> Iterator[Worker]:
        """Workers of which it is time to know how far they are."""
        for worker in self._at_work():
            if worker.is_ready and now_s - worker.asked_s > ASK_SHARE * worker.limit_s(self._limits):
                worker.asked_s = now_s
                yield worker

    def _at_work(self) -> Iterator[Worker]:
        return (worker for worker in self.workers.values() if worker.calls or not worker.is_ready)

    def _place(self) -> None:
        self._wanted = place({name: node.capacity for name, node in self.nodes.items()}, self._request)

    def _is_full(self, kind: WorkerKind) -> bool:
        """Whether there are as many decoders as were asked for. Late nodes move nobody: who is there stays there."""
        return kind == "decode" and self._request.decoders is not None and self.count(kind) >= self._request.decoders

    def _start(self, kind: WorkerKind, node: Node, wanted: NodeWorkers, now_s: float) -> StartWorker:
        self._last += 1
        cores = {"encode": wanted.encoder_cores, "decode": wanted.decoder_cores, "write": 0.0}[kind]
        # Those who are here keep what they claimed when fewer were wanted: a claim must fit beside theirs.
        worker = Worker(self._last, kind, node, now_s, cores=max(0.0, min(cores, node.free_cores)))
        node.free_cores = round(node.free_cores - worker.cores, 4)
        self.workers[self._last] = self._of_kind[kind][self._last] = worker
        node.present[kind] += 1
        return StartWorker(self._last, kind, node.name, worker.cores, wanted.encoder_gpus if kind == "encode" else 0.0)
