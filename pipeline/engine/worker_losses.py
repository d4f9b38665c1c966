"""What follows when nodes and workers are lost: others take over their calls, or their place. Part of the scheduler."""

from __future__ import annotations

from pipeline.counted import counted
from pipeline.engine import commands
from pipeline.engine.commands import Command
from pipeline.engine.decoding import Decoding
from pipeline.engine.encoding import Encoding
from pipeline.engine.ending import Ending
from pipeline.engine.events import Subject
from pipeline.engine.ledger import Ledger
from pipeline.engine.policy import Policy
from pipeline.engine.recovery import Recovery
from pipeline.engine.worker_pool import Worker, WorkerPool
from pipeline.errors import FailureClass
from pipeline.plan.units import Clip


class WorkerLosses:
    """Hands over the calls of lost workers, and starts others in their place."""

    def __init__(
        self,
        policy: Policy,
        pool: WorkerPool,
        ledger: Ledger,
        decoding: Decoding,
        encoding: Encoding,
        recovery: Recovery,
        ending: Ending,
        out: list[Command],
    ) -> None:
        self._policy, self._pool, self._ledger, self._out = policy, pool, ledger, out
        self._decoding, self._encoding, self._recovery, self._ending = decoding, encoding, recovery, ending
        self._has_lost_nodes = False

    def node_lost(self, name: str, now_s: float) -> None:
        """A node is gone, with its workers and what its store held: all of it is repeated elsewhere."""
        if name not in self._pool.nodes:
            return
        node, gone = self._pool.remove_node(name)
        self._has_lost_nodes = True
        self._say(f"node {name} was lost with {counted(len(gone), 'worker')}: that work is repeated on other nodes")
        self._recovery.forgive(node, now_s)
        self._hand_over(gone, now_s)
        for clip in self._ledger.lost_with(node):
            self._recovery.decode_again(clip, now_s)
        self.start_missing(now_s)

    def refused(self, number: int, message: str, now_s: float) -> None:
        """A worker cannot work on its node, and none of its kind can."""
        worker = self._pool.remove(number)
        if worker is None:
            return
        self._out.append(commands.KillWorker(number))
        self._pool.rule_out(worker.node, worker.kind)
        self._go_on_without(worker, message, is_usage=True)
        self._hand_over([worker], now_s)
        self.start_missing(now_s)

    def died(self, number: int, failure: FailureClass, message: str, now_s: float) -> tuple[Worker, Subject] | None:
        """A worker died: its queued calls go to other workers.

        Returns:
            The worker and its running call, which counts as failed; None where none is to blame.
        """
        worker = self._pool.remove(number)
        if worker is None:
            return None
        if not worker.is_ready and self._pool.start_failed(worker, now_s):
            self._go_on_without(worker, f"{worker.kind} workers fail to start: {message}", is_usage=False)
        if self._encodes_several(worker):
            self._say(f"{message}; it had {len(worker.calls)} clips, which are encoded again, each alone")
            self._encoding.suspects.update(clip for clip in worker.calls if isinstance(clip, Clip))
            self._hand_over([worker], now_s)
            return None
        head = worker.calls.popleft() if worker.calls else None
        self._hand_over([worker], now_s)
        if head is None:
            return None
        if failure != "timeout":
            worker.node.recent_deaths.append((now_s, head))
        return worker, head

    def start_missing(self, now_s: float) -> None:
        """Start the workers that are wanted and not there, unless the run was stopped."""
        if not self._ending.is_draining:
            self._out += self._pool.start_missing(now_s)

    def _go_on_without(self, worker: Worker, message: str, *, is_usage: bool) -> None:
        """Its node runs no worker of its kind. The run ends if no other node can, unless lost nodes may return."""
        if self._pool.lacks() == worker.kind and not self._has_lost_nodes:
            self._ending.finish(message, is_usage=is_usage)
        else:
            self._say(f"node {worker.node.name} runs no more {worker.kind} workers: {message}")

    def _encodes_several(self, worker: Worker) -> bool:
        """Whether a worker was at several clips at once, any of which may have ended it."""
        return worker.kind == "encode" and min(len(worker.calls), self._policy.encode_calls_at_once) > 1

    def _hand_over(self, gone: list[Worker], now_s: float) -> None:
        """Give the calls of lost workers to others, without counting an attempt."""
        for worker in gone:
            self._decoding.worker_gone(worker)
            self._encoding.worker_gone(worker)
        for worker in gone:
            for subject in reversed(worker.calls):
                self._recovery.pass_on(worker, subject, now_s)
        self._encoding.refill(now_s)

    def _say(self, text: str) -> None:
        self._out.append(commands.Notify(text))
