"""Which encoder takes which clip: one on the clip's node, else the least loaded. Part of the scheduler."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from pipeline.engine.commands import Command, EncodeClip
from pipeline.engine.ledger import Ledger
from pipeline.engine.policy import CALLS_AHEAD, NEAR_S
from pipeline.engine.worker_pool import Worker, WorkerPool, room_by_calls
from pipeline.plan.units import Clip


class Encoding:
    """Decoded clips that wait, and encoders that have room."""

    def __init__(self, pool: WorkerPool, ledger: Ledger, out: list[Command]) -> None:
        self._pool, self._ledger, self._out = pool, ledger, out
        self._waiting: OrderedDict[Clip, float] = OrderedDict()
        """Decoded clips and since when they wait, the oldest first. Each is in its node's queue as well."""
        self._room = room_by_calls()
        self.avoid: dict[Clip, int] = {}
        """The encoder on which a clip failed last."""
        self.suspects: set[Clip] = set()
        """Clips that were in an encoder together when it died. Each is encoded alone, to find out which one it was."""

    def offer(self, clip: Clip, now_s: float, *, first: bool = False) -> None:
        """Give a decoded clip to an encoder, or queue it; in front if it comes back (`first`)."""
        state = self._ledger.clips[clip]
        most = 1 if clip in self.suspects else self._most_calls()
        for row in (*state.node.room[:most], *self._room[:most]):
            for number in row:
                if not self._avoids(clip, number):
                    self._give(self._pool.workers[number], clip, now_s)
                    return
        for queue in (self._waiting, state.node.waiting):
            queue[clip] = now_s
            queue.move_to_end(clip, last=not first)

    def fill(self, worker: Worker, now_s: float) -> None:
        """Give an encoder that has room waiting clips, those of its own node first."""
        self._update(worker)
        while self._has_room(worker) and len(worker.calls) < self._most_calls():
            clip = self._next(worker)
            if clip is None:
                return
            self.withdraw(clip)
            self._give(worker, clip, now_s)
            if clip in self.suspects:
                self.refill(now_s)
                return

    def succeeded(self, clip: Clip) -> None:
        """Forget what was held against a clip that is encoded, or given up."""
        self.avoid.pop(clip, None)
        self.suspects.discard(clip)

    def withdraw(self, clip: Clip) -> None:
        """Remove a clip from the queues."""
        self._waiting.pop(clip, None)
        self._ledger.clips[clip].node.waiting.pop(clip, None)

    def worker_gone(self, worker: Worker) -> None:
        """Give an encoder nothing more."""
        for row in (*worker.node.room, *self._room):
            row.pop(worker.number, None)

    def refill(self, now_s: float) -> None:
        """Give clips that waited for another encoder, which is lost, or because a suspect waited."""
        for number in [number for row in self._room for number in row] if self._waiting else ():
            self.fill(self._pool.workers[number], now_s)

    def _next(self, worker: Worker) -> Clip | None:
        near, oldest = (self._first(queue, worker) for queue in (worker.node.waiting, self._waiting))
        if near is None or oldest is None or self._waiting[near] - self._waiting[oldest] > NEAR_S:
            return oldest
        return near

    def _first(self, queue: Iterable[Clip], worker: Worker) -> Clip | None:
        return next((clip for clip in queue if not self._avoids(clip, worker.number)), None)

    def _has_room(self, worker: Worker) -> bool:
        """Whether an encoder can take a call. Beside a suspect there is no other."""
        is_alone = bool(self.suspects) and any(clip in self.suspects for clip in worker.calls)
        return worker.is_ready and len(worker.calls) < CALLS_AHEAD and not is_alone

    def _most_calls(self) -> int:
        """Calls that an encoder may have: one while a suspect waits, so that some encoder becomes free for it."""
        return 1 if any(clip in self._waiting for clip in self.suspects) else CALLS_AHEAD

    def _avoids(self, clip: Clip, number: int) -> bool:
        """Whether a clip should wait for another encoder than this one."""
        return bool(self.avoid) and self.avoid.get(clip) == number and self._pool.count("encode") > 1

    def _give(self, worker: Worker, clip: Clip, now_s: float) -> None:
        worker.begin(clip, now_s)
        self._update(worker)
        self._out.append(EncodeClip(worker.number, clip, self._ledger.uri(clip)))

    def _update(self, worker: Worker) -> None:
        self.worker_gone(worker)
        if self._has_room(worker):
            for rooms in (worker.node.room, self._room):
                rooms[len(worker.calls)][worker.number] = None
