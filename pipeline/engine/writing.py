"""Which writer writes which complete shard, and when a failed write is repeated. Part of the scheduler."""

from __future__ import annotations

from collections import OrderedDict

from pipeline.engine.attempts import WRITE_ATTEMPTS, pause_s
from pipeline.engine.commands import Command, Notify, WriteShard
from pipeline.engine.ledger import Ledger, joined
from pipeline.engine.policy import CALLS_AHEAD, IDLE_SHARD_S
from pipeline.engine.worker_pool import Worker, WorkerPool
from pipeline.plan.units import Clip


class Writing:
    """Decides when each shard is written, and by which writer."""

    def __init__(self, pool: WorkerPool, ledger: Ledger, out: list[Command]) -> None:
        self._pool, self._ledger, self._out = pool, ledger, out
        self._complete: OrderedDict[str, None] = OrderedDict()
        """Complete shards that wait for a writer, the oldest first."""
        self._paused: dict[str, None] = {}
        """Shards whose write failed, and is repeated later."""
        self._open: str | None = None

    def update(self, shard_id: str, now_s: float) -> None:
        """Look whether a shard is complete now, and write it."""
        shard = self._ledger.shards[shard_id]
        self._complete.pop(shard_id, None)
        self._paused.pop(shard_id, None)
        if shard.outstanding or shard.is_open or shard.writer:
            return
        if now_s < shard.again_s:
            self._paused[shard_id] = None
        else:
            self._complete[shard_id] = None
            self.write(now_s)

    def write(self, now_s: float) -> None:
        """Give complete shards to writers that have room."""
        free = [w for w in self._pool.of_kind("write") if w.is_ready and len(w.calls) < CALLS_AHEAD]
        while free and self._complete:
            shard_id, _ = self._complete.popitem(last=False)
            shard = self._ledger.shards[shard_id]
            clips = shard.clips
            writer = self._nearest(free, clips)
            shard.writer = writer.number
            writer.begin(shard_id, now_s)
            self._out.append(WriteShard(writer.number, shard_id, clips, joined(shard.failures.values())))
            if len(writer.calls) >= CALLS_AHEAD:
                free.remove(writer)

    def resume(self, now_s: float) -> None:
        """Repeat writes whose pause is over."""
        for shard_id in [name for name in self._paused if now_s >= self._ledger.shards[name].again_s]:
            self.update(shard_id, now_s)

    def failed(self, shard_id: str, message: str, now_s: float) -> str | None:
        """Count a failed write. Returns the error of the run if it was the last attempt."""
        shard = self._ledger.shards[shard_id]
        shard.attempts += 1
        if shard.attempts >= WRITE_ATTEMPTS:
            return f"shard {shard_id} cannot be written: {message}"
        shard.again_s = now_s + pause_s(shard.attempts)
        self._out.append(
            Notify(f"shard {shard_id} cannot be written: {message}; trying again in {pause_s(shard.attempts):.0f} s")
        )
        self.release(shard_id, now_s)
        return None

    def release(self, shard_id: str, now_s: float) -> None:
        """Take a shard from its writer."""
        self._ledger.shards[shard_id].writer = 0
        self.update(shard_id, now_s)

    def close_all_but(self, open_shard: str | None, now_s: float) -> None:
        """Add no more clips to the open shard, unless it is this one."""
        before, self._open = self._open, open_shard
        if before is not None and before != open_shard and before in self._ledger.shards:
            self._ledger.shards[before].is_open = False
            self.update(before, now_s)

    def has_idled(self, now_s: float) -> bool:
        """Whether the open shard has waited long for further videos, and for nothing else."""
        shard = None if self._open is None else self._ledger.shards.get(self._open)
        return shard is not None and not shard.outstanding and now_s - shard.grown_s > IDLE_SHARD_S

    def _nearest(self, free: list[Worker], clips: tuple[Clip, ...]) -> Worker:
        """A writer on the node that holds the last clip's tokens, else the one with the fewest calls."""
        home = self._ledger.clips[clips[-1]].node if clips else None
        return min(free, key=lambda writer: (writer.node is not home, len(writer.calls)))
