"""The workers of a run: who is there, what each is at, and who is late. Part of the scheduler."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.engine.messages import Clip, NodeUp, StartWorker, Subject, WorkerKind
from pipeline.engine.placement import Asked, Crew, Room, place
from pipeline.engine.policy import ASK_SHARE, CALLS_AHEAD, STORE_SHARE, Limits
from pipeline.values import Input

KINDS: tuple[WorkerKind, ...] = ("encode", "write", "decode")
"""In the order in which they are started."""


def room_by_calls() -> tuple[OrderedDict[int, None], ...]:
    """Encoders that have room, by how many calls they have."""
    return tuple(OrderedDict() for _ in range(CALLS_AHEAD))


@dataclass(slots=True, eq=False)
class Node:
    """A node and what lies in its object store."""

    name: str
    capacity: Room
    credit_bytes: int
    """Most bytes of frames that may lie here."""
    frames_bytes: int = 0
    waiting: OrderedDict[Clip, None] = field(default_factory=OrderedDict)
    """Decoded clips that wait for an encoder, the oldest first."""
    starved: OrderedDict[int, None] = field(default_factory=OrderedDict)
    """Decoders that wait until frames are taken away."""
    room: tuple[OrderedDict[int, None], ...] = field(default_factory=room_by_calls)


@dataclass(slots=True, eq=False)
class Worker:
    """A worker and its calls, the one at work first."""

    number: int
    kind: WorkerKind
    node: Node
    since_s: float
    """When it was started, began with its first call, or was last seen to progress."""
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
        return True

    def limit_s(self, limits: Limits) -> float:
        """How long it may be without progress."""
        if not self.is_ready:
            return limits.start_s
        if self.kind == "decode":
            return limits.scan_s if isinstance(self.calls[0], Input) else limits.decode_s
        return limits.encode_s if self.kind == "encode" else limits.write_s


class Staff:
    """Nodes and workers, kept as `place` wants them."""

    def __init__(self, asked: Asked, limits: Limits) -> None:
        self._asked, self._limits = asked, limits
        self._last = 0
        self._of_kind: dict[WorkerKind, dict[int, Worker]] = {kind: {} for kind in KINDS}
        self.nodes: dict[str, Node] = {}
        self.workers: dict[int, Worker] = {}
        self.unfit: set[str] = set()
        """Nodes on which no encoder can work."""

    @property
    def store_credit_bytes(self) -> int:
        """Most bytes of tokens in all stores together."""
        return sum(node.credit_bytes for node in self.nodes.values())

    def count(self, kind: WorkerKind) -> int:
        """Workers of one kind, ready or not."""
        return len(self._of_kind[kind])

    def add_node(self, event: NodeUp) -> None:
        """A node came."""
        room = Room(cores=event.cores, gpus=event.gpus)
        self.nodes[event.node] = Node(event.node, room, int(event.store_bytes * STORE_SHARE))

    def remove_node(self, name: str) -> tuple[Node, list[Worker]]:
        """A node went, and its workers with it."""
        node = self.nodes.pop(name)
        gone = [worker for worker in self.workers.values() if worker.node is node]
        for worker in gone:
            self.remove(worker.number)
        return node, gone

    def remove(self, number: int) -> Worker | None:
        """A worker went; None where it is gone already."""
        worker = self.workers.pop(number, None)
        if worker is not None:
            del self._of_kind[worker.kind][number]
        return worker

    def of_kind(self, kind: WorkerKind) -> Iterator[Worker]:
        """Workers of one kind, ready or not."""
        return iter(self._of_kind[kind].values())

    def hire(self, now_s: float) -> Iterator[StartWorker]:
        """Start the workers that are missing, encoders first on all nodes."""
        crews = self._crews()
        present = Counter((worker.kind, worker.node.name) for worker in self.workers.values())
        for kind in KINDS:
            for name, crew in crews.items():
                for _ in range(crew.number_of(kind) - present[kind, name]):
                    yield self._start(kind, self.nodes[name], crew, now_s)

    def can_encode(self) -> bool:
        """Whether some node may still hold an encoder."""
        return any(crew.encoders for crew in self._crews().values())

    def late(self, now_s: float) -> list[Worker]:
        """Workers that made no progress for longer than they may."""
        return [worker for worker in self._at_work() if now_s - worker.since_s > worker.limit_s(self._limits)]

    def to_be_asked(self, now_s: float) -> Iterator[Worker]:
        """Workers of which it is time to know how far they are."""
        for worker in self._at_work():
            if worker.is_ready and now_s - worker.asked_s > ASK_SHARE * worker.limit_s(self._limits):
                worker.asked_s = now_s
                yield worker

    def _at_work(self) -> Iterator[Worker]:
        return (worker for worker in self.workers.values() if worker.calls or not worker.is_ready)

    def _crews(self) -> dict[str, Crew]:
        return place({name: node.capacity for name, node in self.nodes.items()}, self._asked, frozenset(self.unfit))

    def _start(self, kind: WorkerKind, node: Node, crew: Crew, now_s: float) -> StartWorker:
        self._last += 1
        worker = Worker(self._last, kind, node, now_s)
        self.workers[self._last] = self._of_kind[kind][self._last] = worker
        cores = {"encode": crew.encoder_cores, "decode": crew.decoder_cores, "write": 0.0}[kind]
        return StartWorker(self._last, kind, node.name, cores, crew.encoder_gpus if kind == "encode" else 0.0)
