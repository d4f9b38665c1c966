"""All decisions of a run, as a state machine: `handle(event, now_s)` returns commands.

It imports neither Ray nor a clock nor a file, so it is tested in virtual time. `events` and `commands` define both.
`worker_pool` keeps the nodes and workers, `intake` the inputs that are not planned yet, `ledger` the clips and shards
that are not written yet. `decoding`, `encoding` and `writing` choose what each kind of worker does next, `planning`
assigns clips to shards, `worker_losses` decides who takes over from a lost worker, `recovery` what is retried and what
is given up, and `ending` when the run is over. This file dispatches events to them.
"""

from __future__ import annotations

from collections.abc import Container

from pipeline.engine import commands, events
from pipeline.engine.commands import Command, WorkerKind
from pipeline.engine.decoding import Decoding
from pipeline.engine.encoding import Encoding
from pipeline.engine.ending import Ending
from pipeline.engine.events import Event, Subject
from pipeline.engine.in_flight import InFlight
from pipeline.engine.intake import Intake
from pipeline.engine.ledger import Ledger
from pipeline.engine.planning import Planning
from pipeline.engine.policy import DRAIN_S, PAUSE_S, Policy
from pipeline.engine.recovery import Recovery
from pipeline.engine.worker_losses import WorkerLosses
from pipeline.engine.worker_pool import KINDS, Worker, WorkerPool
from pipeline.engine.writing import Writing
from pipeline.errors import FailureClass
from pipeline.plan.units import Clip


class Scheduler:
    """Decides which workers run where, what each does next, what is retried or given up, and when the run ends.

    Args:
        policy: The settings of the run.
        planned: Ids of the videos that are in the plan already.
    """

    def __init__(self, policy: Policy, planned: Container[str] = frozenset()) -> None:
        self._out: list[Command] = []
        self._now_s = 0.0
        self.pool = WorkerPool(policy.request, policy.limits)
        self.ledger = Ledger()
        self._intake = Intake()
        self._decoding = Decoding(policy, self.pool, self.ledger, self._intake, self._out)
        self._encoding = Encoding(self.pool, self.ledger, self._out)
        self._writing = Writing(self.pool, self.ledger, self._out)
        self._planning = Planning(policy, planned, self._intake, self.ledger, self._decoding, self._writing, self._out)
        stages = self._decoding, self._encoding, self._writing
        self._recovery = Recovery(policy, self.pool, self.ledger, self._intake, stages, self._out)
        self._ending = Ending(policy, self.pool, self.ledger, self._out)
        self._losses = WorkerLosses(
            policy, self.pool, self.ledger, self._decoding, self._encoding, self._recovery, self._ending, self._out
        )
        self._handlers = {
            events.NodeUp: self._node_up,
            events.NodeDown: self._node_down,
            events.Pending: self._pending,
            events.Retry: self._retry,
            events.InputsFound: self._inputs_found,
            events.WorkerReady: self._worker_ready,
            events.WorkerRefused: self._worker_refused,
            events.WorkerDied: self._worker_died,
            events.Progressed: self._progressed,
            events.Scanned: self._scanned,
            events.ClipDecoded: self._clip_decoded,
            events.ClipEncoded: self._clip_encoded,
            events.ShardWritten: self._shard_written,
            events.CallFailed: self._call_failed,
            events.InputLost: self._input_lost,
            events.RunFailed: self._run_failed,
            events.Tick: self._tick,
            events.Stop: self._stop,
        }

    def kind_of(self, number: int) -> WorkerKind | None:
        """The kind of a worker; None if it is gone."""
        worker = self.pool.workers.get(number)
        return None if worker is None else worker.kind

    def in_flight(self) -> InFlight:
        """Bytes between the stages and workers at this moment."""
        frames_bytes = sum(node.frames_bytes for node in self.pool.nodes.values())
        workers = {kind: self.pool.count(kind) for kind in KINDS}
        return InFlight(frames_bytes, self.ledger.token_bytes, workers)

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Handle one event.

        Args:
            event: What happened.
            now_s: When; never less than before.

        Returns:
            The commands to carry out, in order. None follow `Finish`.
        """
        if self.is_finished:
            return []
        if now_s - self._now_s > PAUSE_S:
            self.pool.postpone_deadlines(now_s - self._now_s)
        self._now_s = now_s
        self._handlers[type(event)](event)  # type: ignore[operator]
        self._decoding.assign_to_idle(now_s)
        if not self._ending.is_draining and self._intake.is_empty and not self.ledger.shards:
            self._ending.finish()
        wanted = self._out.copy()
        self._out.clear()
        end = self._ending.finish_command
        return wanted[: wanted.index(end) + 1] if end else wanted

    @property
    def is_finished(self) -> bool:
        """Whether `Finish` was returned."""
        return self._ending.finish_command is not None

    @property
    def is_empty(self) -> bool:
        """Whether no state is left of finished work, except the ids of planned videos."""
        ledger = self.ledger
        owed = ledger.clips or ledger.shards or ledger.videos or ledger.token_bytes
        return not (owed or self._recovery.failed_attempts or self._encoding.avoid or self._encoding.suspects)

    # Nodes and workers.

    def _node_up(self, event: events.NodeUp) -> None:
        if event.node not in self.pool.nodes:
            self.pool.add_node(event)
            self._decoding.find_inputs()

    def _node_down(self, event: events.NodeDown) -> None:
        self._losses.node_lost(event.node, self._now_s)

    def _worker_ready(self, event: events.WorkerReady) -> None:
        worker = self.pool.workers.get(event.worker)
        if worker is None:
            return
        self.pool.started(worker)
        self._next_call(worker)

    def _worker_refused(self, event: events.WorkerRefused) -> None:
        self._losses.refused(event.worker, event.message, self._now_s)

    def _worker_died(self, event: events.WorkerDied) -> None:
        self._worker_lost(event.worker, event.failure, event.message)
        self._losses.start_missing(self._now_s)

    def _worker_lost(self, number: int, failure: FailureClass, message: str) -> None:
        blamed = self._losses.died(number, failure, message, self._now_s)
        if blamed is not None:
            self._record_failure(*blamed, failure, message)

    def _next_call(self, worker: Worker) -> None:
        """Give a worker that has room its next call."""
        if worker.kind == "decode":
            self._decoding.assign(worker, self._now_s)
        elif worker.kind == "encode":
            self._encoding.fill(worker, self._now_s)
        else:
            self._writing.write(self._now_s)

    def _ended(self, number: int, subject: Subject) -> Worker | None:
        """The worker whose call has ended; None if the call was taken from it before."""
        worker = self.pool.workers.get(number)
        return worker if worker is not None and worker.end(subject, self._now_s) else None

    # Scanning and planning.

    def _inputs_found(self, event: events.InputsFound) -> None:
        self._intake.add(event.inputs, event.is_last)
        self._decoding.find_inputs()
        self._planning.plan_scanned(self._now_s)

    def _pending(self, event: events.Pending) -> None:
        self._planning.resume(event, self._now_s)

    def _retry(self, event: events.Retry) -> None:
        self._planning.retry(event, self._now_s)

    def _scanned(self, event: events.Scanned) -> None:
        worker = self._ended(event.worker, event.input)
        if worker is None:
            return
        self._decoding.scanning -= 1
        self._recovery.succeeded(event.input)
        self._intake.scanned(event.input, event.video, self._now_s)
        self._planning.plan_scanned(self._now_s)
        self._next_call(worker)

    # Clips and shards.

    def _clip_decoded(self, event: events.ClipDecoded) -> None:
        worker = self._ended(event.worker, event.clip)
        if worker is None:
            return
        self.ledger.decoded(event.clip, event.num_bytes)
        self._encoding.offer(event.clip, self._now_s)
        self._next_call(worker)

    def _clip_encoded(self, event: events.ClipEncoded) -> None:
        worker = self._ended(event.worker, event.clip)
        if worker is None:
            return
        self._recovery.succeeded(event.clip)
        before = self.ledger.encoded(event.clip, worker.node, event.num_bytes)
        self._encoding.fill(worker, self._now_s)
        self._writing.update(self.ledger.clips[event.clip].shard_id, self._now_s)
        self._decoding.assign_to_blocked(before, self._now_s)

    def _shard_written(self, event: events.ShardWritten) -> None:
        worker = self._ended(event.worker, event.shard_id)
        if worker is None:
            return
        for clip in self.ledger.close(event.shard_id).clips:
            self._out.append(commands.Forget(clip))
        self._next_call(worker)

    # Failures.

    def _call_failed(self, event: events.CallFailed) -> None:
        worker = self._ended(event.worker, event.subject)
        if worker is not None:
            self._record_failure(worker, event.subject, event.failure, event.message)
            self._next_call(worker)

    def _input_lost(self, event: events.InputLost) -> None:
        worker = self._ended(event.worker, event.subject)
        if worker is None:
            return
        lost = (*event.clips, event.subject) if isinstance(event.subject, Clip) else event.clips
        for clip in dict.fromkeys(lost):
            if clip in self.ledger.clips:
                self._recovery.decode_again(clip, self._now_s)
        if isinstance(event.subject, str):
            self._writing.release(event.subject, self._now_s)
        self._next_call(worker)

    def _record_failure(self, worker: Worker, subject: Subject, failure: FailureClass, message: str) -> None:
        error = self._recovery.record_failure(worker, subject, failure, message, self._now_s)
        if error is not None:
            self._ending.finish(error)
        self._planning.plan_scanned(self._now_s)

    # Time and the end.

    def _progressed(self, event: events.Progressed) -> None:
        worker = self.pool.workers.get(event.worker)
        if worker is not None and event.steps != worker.steps:
            worker.steps, worker.since_s = event.steps, self._now_s

    def _tick(self, event: events.Tick) -> None:
        for worker in self.pool.late(self._now_s):
            self._out.append(commands.KillWorker(worker.number))
            silent_s = self._now_s - worker.since_s
            doing = "start" if not worker.is_ready else worker.kind
            self._worker_lost(
                worker.number, "timeout", f"no progress for {silent_s:.0f} s: the {doing} worker was stopped"
            )
        self._losses.start_missing(self._now_s)
        self._ending.check_capacity(self._now_s)
        self._report_slow_starts()
        self._out += [commands.AskProgress(worker.number) for worker in self.pool.to_be_asked(self._now_s)]
        self._planning.plan_scanned(self._now_s)
        self._writing.resume(self._now_s)
        self._ending.finish_drain(self._now_s)

    def _report_slow_starts(self) -> None:
        for worker in self.pool.slow_starts(self._now_s):
            self._say(
                f"node {worker.node.name}: the {worker.kind} worker has not started for "
                f"{self._now_s - worker.since_s:.0f} s: see whether other jobs hold the node's cores or GPUs"
            )

    def _run_failed(self, event: events.RunFailed) -> None:
        self._ending.finish(event.message)

    def _stop(self, event: events.Stop) -> None:
        if self._ending.is_draining:
            return
        self._ending.drain(self._now_s)
        self._say(f"{event.reason}: writing complete shards for at most {DRAIN_S:.0f} s")
        self._decoding.is_stopped = True
        self._planning.close_shard(self._now_s)
        self._ending.finish_drain(self._now_s)

    def _say(self, text: str) -> None:
        self._out.append(commands.Notify(text))
