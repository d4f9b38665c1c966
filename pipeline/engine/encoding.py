"""Which encoder takes which clip: one of its own node, else the least loaded. Part of the scheduler."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from pipeline.engine.ledger import Ledger
from pipeline.engine.messages import Command, EncodeClip
from pipeline.engine.policy import CALLS_AHEAD, NEAR_S
from pipeline.engine.worker_pool import Worker, WorkerPool, room_by_calls
from pipeline.plan.units import Clip


class Encoding:
    """Decoded clips that wait, and encoders that have room."""

    def __init__(self, pool: WorkerPool, ledger: Ledger, out: list[Command]) -> None:
        self._pool, self._ledger, self._out = pool, ledger, out
        self._waiting: OrderedDict[Clip, float] = OrderedDict()
        """Since when they wait, the oldest first; each is in its node's queue as well."""
        self._room = room_by_calls()
        self.avoid: dict[Clip, int] = {}
        """The last encoder that could not take a clip."""

    def offer(self, clip: Clip, now_s: float, *, first: bool = False) -> None:
        """A clip is decoded, or (`first`) comes back."""
        state = self._ledger.clips[clip]
        for row in (*state.node.room, *self._room):
            for number in row:
                if not self._avoids(clip, number):
                    self._give(self._pool.workers[number], clip, now_s)
                    return
        for queue in (self._waiting, state.node.waiting):
            queue[clip] = now_s
            queue.move_to_end(clip, last=not first)

    def fill(self, worker: Worker, now_s: float) -> None:
        """An encoder is ready, or has one call less: give it clips that wait, of its own node first."""
        self._update(worker)
        while worker.is_ready and len(worker.calls) < CALLS_AHEAD:
            clip = self._next(worker)
            if clip is None:
                return
            self.withdraw(clip)
            self._give(worker, clip, now_s)

    def withdraw(self, clip: Clip) -> None:
        """A clip does not wait any more."""
        self._waiting.pop(clip, None)
        self._ledger.clips[clip].node.waiting.pop(clip, None)

    def worker_gone(self, worker: Worker) -> None:
        """An encoder is gone."""
        for row in (*worker.node.room, *self._room):
            row.pop(worker.number, None)

    def refill(self, now_s: float) -> None:
        """Encoders left: what waited for another one than those with room may have to wait no more."""
        for number in [number for row in self._room for number in row] if self._waiting else ():
            self.fill(self._pool.workers[number], now_s)

    def _next(self, worker: Worker) -> Clip | None:
        near, oldest = (self._first(queue, worker) for queue in (worker.node.waiting, self._waiting))
        if near is None or oldest is None or self._waiting[near] - self._waiting[oldest] > NEAR_S:
            return oldest
        return near

    def _first(self, queue: Iterable[Clip], worker: Worker) -> Clip | None:
        return next((clip for clip in queue if not self._avoids(clip, worker.number)), None)

    def _avoids(self, clip: Clip, number: int) -> bool:
        """Whether a clip should wait for another encoder than this one."""
        return bool(self.avoid) and self.avoid.get(clip) == number and self._pool.count("encode") > 1

    def _give(self, worker: Worker, clip: Clip, now_s: float) -> None:
        worker.begin(clip, now_s)
        self._update(worker)
        self._out.append(EncodeClip(worker.number, clip, self._ledger.uri(clip)))

    def _update(self, worker: Worker) -> None:
        self.worker_gone(worker)
        if worker.is_ready and len(worker.calls) < CALLS_AHEAD:
            for rooms in (worker.node.room, self._room):
                rooms[len(worker.calls)][worker.number] = None
