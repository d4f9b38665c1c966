"""The nodes and workers of a run: their calls, their deadlines, what is missing. Part of the scheduler."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pipeline.engine.attempts import START_ATTEMPTS, pause_s
from pipeline.engine.commands import StartWorker, WorkerKind
from pipeline.engine.events import NodeUp, Subject
from pipeline.engine.placement import NodeResources, NodeWorkers, ResourceRequest, place
from pipeline.engine.policy import ASK_SHARE, CALLS_AHEAD, SLOW_START_S, STORE_SHARE, Limits
from pipeline.inputs.named import Input
from pipeline.plan.units import Clip

KINDS: tuple[WorkerKind, ...] = ("encode", "write", "decode")
"""In the order in which they are started."""


def room_by_calls() -> tuple[OrderedDict[int, None], ...]:
    """Encoders that can take a call, by how many calls they have."""
    return tuple(OrderedDict() for _ in range(CALLS_AHEAD))


@dataclass(slots=True)
class FailedStarts:
    """Failed starts of one kind of worker on one node. Failures close together count as one round."""

    rounds: int = 0
    again_s: float = 0.0
    """Earliest time of the next start. Failures before it belong to the same round."""


@dataclass(slots=True, eq=False)
class Node:
    """A node and the contents of its object store."""

    name: str
    capacity: NodeResources
    credit_bytes: int
    """Most bytes of frames that may be stored here."""
    free_cores: float
    """Cores that no worker claims."""
    frames_bytes: int = 0
    waiting: OrderedDict[Clip, float] = field(default_factory=OrderedDict)
    """Decoded clips that wait for an encoder, the oldest first."""
    blocked: OrderedDict[int, None] = field(default_factory=OrderedDict)
    """Decoders that wait until frames leave the store."""
    room: tuple[OrderedDict[int, None], ...] = field(default_factory=room_by_calls)
    present: Counter[WorkerKind] = field(default_factory=Counter)
    failed_starts: dict[WorkerKind, FailedStarts] = field(default_factory=dict)
    told_slow: set[WorkerKind] = field(default_factory=set)
    """Kinds of workers whose slow start was reported."""
    recent_deaths: deque[tuple[float, Subject]] = field(default_factory=lambda: deque(maxlen=1000))
    """When workers died here, and the call that was running."""


@dataclass(slots=True, eq=False)
class Worker:
    """A worker and its calls, the running one first."""

    number: int
    kind: WorkerKind
    node: Node
    since_s: float
    """When it was started, began its running call, or last made progress."""
    cores: float = 0.0
    """Cores that it reserves."""
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
        """Remove a call that has ended; False if the worker has no such call."""
        if subject not in self.calls:
            return False
        self.calls.remove(subject)
        self.since_s = self.asked_s = now_s
        self.steps = 0
        return True

    def limit_s(self, limits: Limits) -> float:
        """Seconds without progress after which it is stopped."""
        if not self.is_ready:
            return limits.start_s
        if self.kind == "decode":
            return limits.scan_s if isinstance(self.calls[0], Input) else limits.decode_s
        return limits.encode_s if self.kind == "encode" else limits.write_s


class WorkerPool:
    """Nodes and workers, kept as `place` says."""

    def __init__(self, request: ResourceRequest, limits: Limits) -> None:
        self._request, self._limits = request, limits
        self._last = 0
        self._of_kind: dict[WorkerKind, dict[int, Worker]] = {kind: {} for kind in KINDS}
        self._wanted: dict[str, NodeWorkers] = {}
        """Result of `place` for the present nodes."""
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
        """Whether a node is present. A node that left and came back counts as another one."""
        return self.nodes.get(node.name) is node

    def lacks(self) -> WorkerKind | None:
        """A kind of worker that does not exist and fits on no node; None if there is no such kind."""
        for kind in KINDS:
            if not self._of_kind[kind] and not any(wanted.number_of(kind) for wanted in self._wanted.values()):
                return kind
        return None

    def add_node(self, event: NodeUp) -> None:
        """Add a node."""
        resources = NodeResources(cores=event.cores, gpus=event.gpus)
        self.nodes[event.node] = Node(event.node, resources, int(event.store_bytes * STORE_SHARE), float(event.cores))
        self._place()

    def remove_node(self, name: str) -> tuple[Node, list[Worker]]:
        """Remove a node with its workers."""
        node = self.nodes.pop(name)
        gone = [worker for worker in self.workers.values() if worker.node is node]
        for worker in gone:
            self.remove(worker.number)
        self._place()
        return node, gone

    def remove(self, number: int) -> Worker | None:
        """Remove a worker; None if it is gone already."""
        worker = self.workers.pop(number, None)
        if worker is not None:
            del self._of_kind[worker.kind][number]
            worker.node.present[worker.kind] -= 1
            worker.node.free_cores = round(worker.node.free_cores + worker.cores, 4)
        return worker

    def rule_out(self, node: Node, kind: WorkerKind) -> None:
        """Place no more workers of this kind on a node."""
        node.capacity = replace(node.capacity, unfit=node.capacity.unfit | {kind})
        self._place()

    def started(self, worker: Worker) -> None:
        """Mark a worker as ready."""
        worker.is_ready = True
        worker.node.failed_starts.pop(worker.kind, None)
        worker.node.told_slow.discard(worker.kind)

    def start_failed(self, worker: Worker, now_s: float) -> bool:
        """Count a worker that ended before it was ready. Returns whether its node gets no more workers of its kind."""
        failed = worker.node.failed_starts.setdefault(worker.kind, FailedStarts())
        if now_s >= failed.again_s:
            failed.rounds += 1
            failed.again_s = now_s + pause_s(failed.rounds)
        if failed.rounds < START_ATTEMPTS:
            return False
        self.rule_out(worker.node, worker.kind)
        return True

    def start_missing(self, now_s: float) -> Iterator[StartWorker]:
        """Start the missing workers: first the encoders of all nodes, then the writers, then the decoders."""
        for kind in KINDS:
            for name, wanted in self._wanted.items():
                node = self.nodes[name]
                if kind in node.failed_starts and now_s < node.failed_starts[kind].again_s:
                    continue
                for _ in range(wanted.number_of(kind) - node.present[kind]):
                    if not self._is_full(kind):
                        yield self._start(kind, node, wanted, now_s)

    def postpone_deadlines(self, gap_s: float) -> None:
        """Extend all deadlines by a time in which the driver received no events."""
        for worker in self.workers.values():
            worker.since_s += gap_s
            worker.asked_s += gap_s

    def late(self, now_s: float) -> list[Worker]:
        """Workers that made no progress for longer than their limit."""
        return [worker for worker in self._at_work() if now_s - worker.since_s > worker.limit_s(self._limits)]

    def slow_starts(self, now_s: float) -> Iterator[Worker]:
        """Workers that take long to start; of each kind on each node one, once."""
        for worker in self.workers.values():
            node, is_slow = worker.node, not worker.is_ready and now_s - worker.since_s > SLOW_START_S
            if is_slow and worker.kind not in node.told_slow:
                node.told_slow.add(worker.kind)
                yield worker

    def to_be_asked(self, now_s: float) -> Iterator[Worker]:
        """Workers whose progress is due to be asked for."""
        for worker in self._at_work():
            if worker.is_ready and now_s - worker.asked_s > ASK_SHARE * worker.limit_s(self._limits):
                worker.asked_s = now_s
                yield worker

    def _at_work(self) -> Iterator[Worker]:
        return (worker for worker in self.workers.values() if worker.calls or not worker.is_ready)

    def _place(self) -> None:
        self._wanted = place({name: node.capacity for name, node in self.nodes.items()}, self._request)

    def _is_full(self, kind: WorkerKind) -> bool:
        """Whether there are as many decoders as requested. Workers do not move when a node joins late."""
        return kind == "decode" and self._request.decoders is not None and self.count(kind) >= self._request.decoders

    def _start(self, kind: WorkerKind, node: Node, wanted: NodeWorkers, now_s: float) -> StartWorker:
        self._last += 1
        cores = {"encode": wanted.encoder_cores, "decode": wanted.decoder_cores, "write": 0.0}[kind]
        # Workers that are here keep the cores that they reserved when fewer were wanted.
        worker = Worker(self._last, kind, node, now_s, cores=max(0.0, min(cores, node.free_cores)))
        node.free_cores = round(node.free_cores - worker.cores, 4)
        self.workers[self._last] = self._of_kind[kind][self._last] = worker
        node.present[kind] += 1
        gpus = {"encode": wanted.encoder_gpus, "decode": wanted.decoder_gpus, "write": 0.0}[kind]
        return StartWorker(self._last, kind, node.name, worker.cores, gpus)
