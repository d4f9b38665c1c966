"""What is repeated and what is given up, after failures and losses. Part of the scheduler."""

from __future__ import annotations

from pipeline.engine import commands
from pipeline.engine.attempts import HOPELESS_CLIPS, FailedAttempts
from pipeline.engine.commands import Command
from pipeline.engine.decoding import Decoding
from pipeline.engine.encoding import Encoding
from pipeline.engine.events import Subject
from pipeline.engine.intake import Intake
from pipeline.engine.ledger import Ledger
from pipeline.engine.policy import NODE_LOSS_S, Policy
from pipeline.engine.worker_pool import Node, Worker, WorkerPool
from pipeline.engine.writing import Writing
from pipeline.errors import FailureClass
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.settled import Grid
from pipeline.plan.units import Clip


class Recovery:
    """Repeats what was lost, and decides about what failed."""

    def __init__(
        self,
        policy: Policy,
        pool: WorkerPool,
        ledger: Ledger,
        intake: Intake,
        stages: tuple[Decoding, Encoding, Writing],
        out: list[Command],
    ) -> None:
        self._policy, self._pool, self._ledger, self._intake, self._out = policy, pool, ledger, intake, out
        self._decoding, self._encoding, self._writing = stages
        self.failed_attempts = FailedAttempts()
        self._unencodable: int | None = 0
        """Clips given up by encoders before the first success; None after it."""

    def succeeded(self, subject: Input | Clip) -> None:
        """Clear the failed attempts of an input that was scanned, or a clip that was encoded."""
        self.failed_attempts.clear(subject)
        if isinstance(subject, Clip):
            self._unencodable = None
            self._encoding.succeeded(subject)

    def forgive(self, node: Node, now_s: float) -> None:
        """A node was lost: take back attempts that failed because its workers died just before."""
        for died_s, subject in node.recent_deaths:
            if now_s - died_s < NODE_LOSS_S:
                self.failed_attempts.forgive(subject)

    def pass_on(self, worker: Worker, subject: Subject, now_s: float) -> None:
        """Give a call of a lost worker to another, without counting an attempt."""
        if isinstance(subject, Input):
            self._decoding.scanning -= 1
            self._decoding.scan_again(subject)
        elif not isinstance(subject, Clip):
            self._writing.release(subject, now_s)
        elif worker.kind == "encode" and self._pool.is_up(self._ledger.clips[subject].node):
            self._encoding.offer(subject, now_s, first=True)
        else:
            self.decode_again(subject, now_s)

    def decode_again(self, clip: Clip, now_s: float, *, alone: bool = False) -> None:
        """Decode a clip again whose frames or tokens are lost."""
        self._encoding.withdraw(clip)
        if clip in self._encoding.suspects:
            self._encoding.refill(now_s)
        state = self._ledger.drop(clip)
        self._out.append(commands.Forget(clip))
        self._writing.update(state.shard_id, now_s)
        self._decoding.decode_again(clip, state.shard_id, alone=alone)
        self._decoding.assign_to_blocked(state.node, now_s)

    def record_failure(
        self, worker: Worker, subject: Subject, failure: FailureClass, message: str, now_s: float
    ) -> str | None:
        """Count a failed attempt against the subject of a call. Returns the error of the run if it has to end."""
        if isinstance(subject, Input):
            self._input_failed(worker, subject, failure, message, now_s)
        elif isinstance(subject, Clip):
            return self._clip_failed(worker, subject, "encode" if worker.kind == "encode" else failure, message, now_s)
        else:
            return self._writing.failed(subject, message, now_s)
        return None

    def _input_failed(self, worker: Worker, source: Input, failure: FailureClass, message: str, now_s: float) -> None:
        self._decoding.scanning -= 1
        attempts = self.failed_attempts.add(source, failure)
        if attempts is None:
            self._out.append(commands.Notify(f"{source.uri}: {message}; scanning it again"))
            self._decoding.scan_again(source)
            return
        failed = FailedRange(
            video_id=source.unread_id,
            uri=source.uri,
            start_ns=0,
            end_ns=0,
            failure=failure,
            message=message,
            attempts=attempts,
            stage="scan",
            node=worker.node.name,
        )
        self._out.append(commands.ReportFailure(failed, worker.number))
        self._intake.scanned(source, PlannedVideo(source=source.unread_source(), failures=(failed,)), now_s)

    def _clip_failed(self, worker: Worker, clip: Clip, failure: FailureClass, message: str, now_s: float) -> str | None:
        attempts = self.failed_attempts.add(clip, failure)
        if attempts is not None:
            return self._give_up(worker, clip, self._failed(worker, clip, failure, message, attempts), now_s)
        self._out.append(
            commands.Notify(f"clip {clip.video_id}-{clip.index:06d}: {message}; it will be {worker.kind}d again")
        )
        if worker.kind == "encode":
            self._encoding.avoid[clip] = worker.number
        if worker.kind == "encode" and self._pool.is_up(self._ledger.clips[clip].node):
            self._encoding.offer(clip, now_s, first=True)
        else:
            self.decode_again(clip, now_s, alone=True)
        return None

    def _failed(self, worker: Worker, clip: Clip, failure: FailureClass, message: str, attempts: int) -> FailedRange:
        video = self._ledger.videos[clip.video_id].plan
        start_ns, end_ns = Grid(self._policy.fps, self._policy.clip_frames).span_ns(video, clip.index)
        return FailedRange(
            video_id=clip.video_id,
            uri=video.source.uri,
            start_ns=start_ns,
            end_ns=end_ns,
            failure=failure,
            message=message,
            attempts=attempts,
            stage=worker.kind,
            node=worker.node.name,
        )

    def _give_up(self, worker: Worker, clip: Clip, failed: FailedRange, now_s: float) -> str | None:
        state = self._ledger.give_up(clip, failed)
        self._encoding.succeeded(clip)
        self._out += [commands.Forget(clip), commands.ReportFailure(failed, worker.number)]
        self._writing.update(state.shard_id, now_s)
        self._decoding.assign_to_blocked(state.node, now_s)
        if failed.failure == "encode" and self._unencodable is not None:
            self._unencodable += 1
            if self._unencodable >= HOPELESS_CLIPS:
                return f"none of the first {HOPELESS_CLIPS} clips could be encoded: {failed.message}"
        return None
