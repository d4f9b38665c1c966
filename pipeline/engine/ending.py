"""When a run ends: everything is written, it cannot go on, or it was stopped. Part of the scheduler."""

from __future__ import annotations

from collections import Counter

from pipeline.counted import counted
from pipeline.engine.commands import Command, Finish
from pipeline.engine.ledger import Ledger
from pipeline.engine.policy import DRAIN_S, Policy
from pipeline.engine.worker_pool import WorkerPool


class Ending:
    """Decides when the run is over."""

    def __init__(self, policy: Policy, pool: WorkerPool, ledger: Ledger, out: list[Command]) -> None:
        self._policy, self._pool, self._ledger, self._out = policy, pool, ledger, out
        self.finish_command: Finish | None = None
        """The last command, once the run is over."""
        self._drains_until_s: float | None = None
        self._lacks_since_s: float | None = None
        """Since when some kind of worker fits on no node."""
        self._had_all_kinds = False

    @property
    def is_draining(self) -> bool:
        """Whether the run was stopped."""
        return self._drains_until_s is not None

    def finish(self, error: str | None = None, *, is_usage: bool = False) -> None:
        """End the run, unless it has ended."""
        if self.finish_command is None:
            self.finish_command = Finish(error, is_usage)
            self._out.append(self.finish_command)

    def drain(self, now_s: float) -> None:
        """Give complete shards some seconds to be written."""
        self._drains_until_s = now_s + DRAIN_S

    def finish_drain(self, now_s: float) -> None:
        """After a stop: finish when no further shard can become complete, or time is up."""
        if self._drains_until_s is not None and (now_s >= self._drains_until_s or not self._may_complete()):
            self.finish()

    def check_capacity(self, now_s: float) -> None:
        """End the run if for some time no node can hold some kind of worker."""
        kind = self._pool.lacks()
        if kind is None:
            self._lacks_since_s, self._had_all_kinds = None, True
            return
        if self._lacks_since_s is None:
            self._lacks_since_s = now_s
        limits = self._policy.limits
        if now_s - self._lacks_since_s <= (limits.start_s if self._had_all_kinds else limits.nodes_s):
            return
        nodes = self._pool.nodes.values()
        request = self._policy.request
        needs_gpu = {"encode": request.reserve_gpus, "decode": request.decode_on_gpus, "write": False}[kind]
        gpus = sum(node.capacity.gpus for node in nodes)
        self.finish(
            f"no node can hold the {kind} worker{' with a GPU' if needs_gpu else ''}: "
            f"the cluster has {counted(len(nodes), 'node')} with {counted(gpus, 'GPU')}",
            is_usage=not self._had_all_kinds,
        )

    def _may_complete(self) -> bool:
        """Whether some shard becomes complete from clips that are already decoded."""
        decoding = {subject for worker in self._pool.of_kind("decode") for subject in worker.calls}
        coming = Counter(
            state.shard_id
            for clip, state in self._ledger.clips.items()
            if not state.is_encoded and clip not in decoding
        )
        return any(shard.outstanding == coming[shard_id] for shard_id, shard in self._ledger.shards.items())
