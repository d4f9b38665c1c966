"""What must hold at every step, judged from outside: by events, commands, and what is true of the cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pipeline.engine import commands, events
from pipeline.engine.attempts import HOPELESS_CLIPS, MAX_ATTEMPTS, START_ATTEMPTS, WORTH_RETRYING, WRITE_ATTEMPTS
from pipeline.engine.commands import Command, WorkerKind
from pipeline.engine.events import Event, Subject
from pipeline.engine.policy import CALLS_AHEAD, STORE_SHARE
from pipeline.engine.scheduler import Scheduler
from pipeline.inputs.named import Input
from pipeline.plan.units import Clip, ShardUnit, Unit
from tests.simulation.cluster import NODE_GONE, Cluster, subject_of
from tests.simulation.scenario import CLIP_BYTES
from tests.simulation.store import ViolationError, check, clips_of

OVERTAKERS = 8
"""Units that may be begun before what is to be done again: the rests of units of lost decoders are as urgent."""


@dataclass(eq=False)
class Known:
    """A worker as the driver knows it."""

    kind: WorkerKind
    node: str
    is_ready: bool = False
    calls: list[Subject] = field(default_factory=list)
    held: Unit | None = None
    """What is left of a decoder's unit after its last call."""


class Watch:
    def __init__(self, cluster: Cluster, scheduler: Scheduler) -> None:
        self._cluster, self._scheduler = cluster, scheduler
        self._policy = cluster.scenario.policy
        self.workers: dict[int, Known] = {}
        self._credit: dict[str, int] = {}
        self._frames: dict[Clip, tuple[str, int]] = {}
        self._tokens: dict[Clip, int] = {}
        self._unbegun: set[Clip] = set()
        self._again: Counter[Clip] = Counter()
        """Begun and lost: how many units were begun since."""
        self._shard_of: dict[Clip, str] = {}
        self._started: set[str] = set()
        self._written: set[str] = set()
        self._failed_on: dict[Clip, int] = {}
        self.failed: set[Clip] = set()
        self._found = 0
        """Inputs that wait for their scan."""
        self._is_stopped = False
        self._suspects: set[Clip] = set()
        """Clips that were in an encoder together when it ended."""
        self._struck_by_loss: dict[str, list[Subject]] = {}
        """What was at work in workers of each node that died with it, before the driver hears of the node."""
        self._writer_ended: set[str] = set()
        """Nodes on which a writer was lost or cannot work; a new one may have to wait."""

    # What the driver hears.

    def hear(self, event: Event) -> None:
        """Before the scheduler handles it."""
        if isinstance(event, events.NodeUp):
            self._credit[event.node] = int(event.store_bytes * STORE_SHARE)
        elif isinstance(event, events.NodeDown):
            self._credit.pop(event.node)
            for subject in self._struck_by_loss.pop(event.node, ()):
                self._cluster.struck[subject] -= 1
            for number in [n for n, known in self.workers.items() if known.node == event.node]:
                self._leave(number)
        elif isinstance(event, events.WorkerReady):
            if event.worker in self.workers:
                self.workers[event.worker].is_ready = True
        elif isinstance(event, events.WorkerDied):
            known = self.workers.get(event.worker)
            if event.message == NODE_GONE and known is not None and known.calls and not self._has_several(known):
                # Until the driver hears of the node it cannot know better.
                self._cluster.strike(known.calls[0])
                self._struck_by_loss.setdefault(known.node, []).append(known.calls[0])
            self._leave(event.worker, head_struck=True)
        elif isinstance(event, events.Pending | events.Retry):
            pass
        elif isinstance(event, events.InputsFound):
            self._found += len(event.inputs)
        elif isinstance(event, events.Stop):
            self._is_stopped = True
        elif isinstance(event, events.Scanned):
            self._answer(event.worker, event.input)
        elif isinstance(event, events.ClipDecoded):
            if known := self._answer(event.worker, event.clip):
                self._frames[event.clip] = known.node, event.num_bytes
                self._cluster.objects[event.clip] = self._cluster.workers[event.worker].node
        elif isinstance(event, events.ClipEncoded):
            if self._answer(event.worker, event.clip):
                self._frames.pop(event.clip)
                self._failed_on.pop(event.clip, None)
                self._suspects.discard(event.clip)
                self._tokens[event.clip] = event.num_bytes
                self._cluster.objects[event.clip] = self._cluster.workers[event.worker].node
        elif isinstance(event, events.ShardWritten):
            if self._answer(event.worker, event.shard_id):
                self._written.add(event.shard_id)
        elif isinstance(event, events.CallFailed) and (known := self._answer(event.worker, event.subject)):
            self._note_failure(event.worker, known, event.subject)
        elif isinstance(event, events.InputLost):
            self._answer(event.worker, event.subject)

    def _answer(self, number: int, subject: Subject) -> Known | None:
        known = self.workers.get(number)
        if known is None or subject not in known.calls:
            return None
        known.calls.remove(subject)
        return known

    def _leave(self, number: int, *, head_struck: bool = False) -> None:
        known = self.workers.pop(number, None)
        if known is None:
            return
        if known.kind == "write":
            self._writer_ended.add(known.node)
        is_unclear = head_struck and self._has_several(known)
        if is_unclear:
            self._suspects.update(clip for clip in known.calls if isinstance(clip, Clip))
        for i, subject in enumerate(known.calls):
            if i == 0 and head_struck and not is_unclear:
                self._note_failure(number, known, subject)
            elif isinstance(subject, Input):
                self._found += 1

    def _has_several(self, known: Known) -> bool:
        """Whether an encoder was at several clips at once: then its end is held against none of them."""
        return known.kind == "encode" and min(len(known.calls), self._policy.encode_calls_at_once) > 1

    def _note_failure(self, number: int, known: Known, subject: Subject) -> None:
        if isinstance(subject, Input):
            self._found += 1
        elif known.kind == "encode" and isinstance(subject, Clip):
            self._failed_on[subject] = number

    # What the scheduler wants.

    def see(self, wanted: list[Command]) -> None:
        """After the scheduler handled an event."""
        decodes_are_started = False
        for command in wanted:
            if isinstance(command, commands.StartWorker):
                node = self._cluster.nodes[command.node]
                check(node.fits(command.cores, command.gpus) or not node.is_up, f"no room for {command}")
                check(not (decodes_are_started and command.kind == "encode"), "an encoder is started after a decoder")
                decodes_are_started = decodes_are_started or command.kind == "decode"
                self.workers[command.worker] = Known(command.kind, command.node)
                self._cluster.start(command)
            elif isinstance(command, commands.KillWorker):
                worker = self._cluster.workers[command.worker]
                check(worker.hangs or worker.is_dead, f"healthy worker {command.worker} is killed")
                self._cluster.kill(command.worker)
                self._leave(command.worker, head_struck=True)
            elif isinstance(command, commands.AskProgress):
                check(self._worker(command.worker).calls, "an idle worker is asked for its progress")
                self._cluster.ask(command.worker)
            elif isinstance(command, commands.Scan | commands.DecodeClip | commands.EncodeClip | commands.WriteShard):
                self._call(command)
            elif isinstance(command, commands.AppendPlan):
                self.plan(command.units)
            elif isinstance(command, commands.Forget):
                self._forget(command.clip)
            elif isinstance(command, commands.ReportFailure):
                self._report(command)
        self._check_balance()

    def plan(self, units: tuple[ShardUnit, ...]) -> None:
        """Clips that are owed from now on."""
        for shard_id, unit in units:
            for i in range(unit.first, unit.first + unit.count):
                self._unbegun.add(Clip(unit.video_id, i))
                self._shard_of[Clip(unit.video_id, i)] = shard_id

    def _worker(self, number: int) -> Known:
        check(number in self.workers, f"worker {number} is not known, or gone")
        check(self.workers[number].is_ready, f"worker {number} is not ready")
        return self.workers[number]

    def _call(self, call: commands.Scan | commands.DecodeClip | commands.EncodeClip | commands.WriteShard) -> None:
        worker = self._worker(call.worker)
        check(len(worker.calls) < CALLS_AHEAD, f"worker {call.worker} has too many calls")
        if isinstance(call, commands.Scan):
            check(worker.kind == "decode", "only decoders scan")
            self._found -= 1
        elif isinstance(call, commands.DecodeClip):
            check(worker.kind == "decode", "only decoders decode")
            self._check_decode(worker, call)
        elif isinstance(call, commands.EncodeClip):
            check(worker.kind == "encode", "only encoders encode")
            self._check_encode(call)
        else:
            check(worker.kind == "write", "only writers write")
            self._cluster.stored.save()
            self._cluster.stored.check_content(call.shard_id, call.clips, call.failures)
            check(all(clip in self._tokens for clip in call.clips), "a shard is written without its tokens")
            check({c for f in call.failures for c in clips_of(f)} <= self.failed, "a failure nobody reported")
        worker.calls.append(subject_of(call))
        self._cluster.give(call)

    def _check_decode(self, worker: Known, call: commands.DecodeClip) -> None:
        clip, unit = call.clip, call.unit
        check((clip.video_id, clip.index) == (unit.video_id, unit.first), "a unit is not begun at its first clip")
        check(clip in self._unbegun, f"{clip} is decoded though it is not owed, or decoded already")
        check(not self._is_stopped, "a clip is decoded after a stop")
        if worker.held != unit:
            if clip not in self._again:
                held = self._held()
                for other in self._again:
                    self._again[other] += other not in held
                    check(self._again[other] <= OVERTAKERS, f"{other} is to be done again, and waits for others")
            is_full = sum(self._tokens.values()) > sum(self._credit.values())
            check(not is_full or self._shard_of[clip] in self._started, "a shard is started while the stores are full")
        del self._again[clip]
        self._unbegun.discard(clip)
        self._started.add(self._shard_of[clip])
        worker.held = Unit(unit.video_id, unit.first + 1, unit.count - 1) if unit.count > 1 else None

    def _check_encode(self, call: commands.EncodeClip) -> None:
        check(call.clip in self._frames, f"{call.clip} is encoded without frames")
        encoders = {n: w for n, w in self.workers.items() if w.kind == "encode"}
        failed_on = self._failed_on.get(call.clip)
        check(failed_on != call.worker or len(encoders) == 1, "a clip goes to the encoder that could not take it")
        beside = encoders[call.worker].calls
        check(not (beside and call.clip in self._suspects), f"{call.clip} has to be alone in its encoder")
        check(not any(clip in self._suspects for clip in beside), f"{call.clip} is beside one that has to be alone")
        given = {clip for known in encoders.values() for clip in known.calls}
        waits = any(clip in self._frames and clip not in given for clip in self._suspects - {call.clip})
        most = 1 if waits or call.clip in self._suspects else CALLS_AHEAD
        free = {n: w for n, w in encoders.items() if w.is_ready and not self._suspects.intersection(w.calls)}
        room = {n: w for n, w in free.items() if len(w.calls) < most and n != failed_on}
        near = {n: w for n, w in room.items() if w.node == self._frames[call.clip][0]}
        least = min((len(w.calls) for w in (near or room).values()), default=0)
        if not room:
            return
        home = self._frames[call.clip][0]
        check(not near or encoders[call.worker].node == home, "a clip leaves its node without need")
        check(len(encoders[call.worker].calls) <= least, "a clip goes to a busy encoder while another has less to do")

    def _forget(self, clip: Clip) -> None:
        self._frames.pop(clip, None)
        self._tokens.pop(clip, None)
        self._cluster.objects.pop(clip, None)
        if clip not in self.failed and self._shard_of[clip] not in self._written:
            self._unbegun.add(clip)
            self._again[clip] = 0

    def _report(self, command: commands.ReportFailure) -> None:
        failed = command.failed
        scenario, struck = self._cluster.scenario, self._cluster.struck
        if failed.stage == "scan":
            times = max((n for s, n in struck.items() if isinstance(s, Input) and s.uri == failed.uri), default=0)
            is_poison = failed.uri in scenario.scan_harm
            subjects: list[Clip] = []
            self._found -= 1
        else:
            subjects = clips_of(failed)
            check(len(subjects) == 1, "a failure is one clip")
            times = struck.get(subjects[0], 0)
            is_poison = subjects[0] in scenario.decode_harm or subjects[0] in scenario.encode_harm
        check(is_poison or times >= MAX_ATTEMPTS, f"{failed.uri} {subjects} is innocent: {failed}")
        is_final = failed.failure not in WORTH_RETRYING
        check(times >= MAX_ATTEMPTS or is_final, f"given up after {times} attempts: {failed}")
        named = max(1, [source.uri for source in scenario.inputs].count(failed.uri))
        check(times <= (MAX_ATTEMPTS + 6) * named, f"given up only after {times} attempts: {failed}")
        for clip in subjects:
            check(clip not in self.failed, f"{clip} failed twice")
            self.failed.add(clip)
            del self._again[clip]
            self._unbegun.discard(clip)

    # What must hold between two events.

    def _check_balance(self) -> None:
        # Some million times: nothing is made here that is not needed.
        frames = dict.fromkeys(self._credit, 0)
        for node, num_bytes in self._frames.values():
            frames[node] = frames.get(node, 0) + num_bytes
        writes, encodes, idle = set(self._writer_ended), set(), []
        for number, worker in self.workers.items():
            if worker.kind == "write":
                writes.add(worker.node)
            elif worker.kind == "encode":
                encodes.add(worker.node)
            if worker.is_ready and not worker.calls:
                idle.append((number, worker))
        if not encodes <= writes:
            raise ViolationError(f"nodes {encodes - writes} encode and have no writer of their own")
        for node, credit in self._credit.items():
            if frames[node] > max(credit, CLIP_BYTES):
                raise ViolationError(f"{frames[node]} bytes of frames on {node}, credit {credit}")
        if not idle or self._scheduler.is_finished or self._is_stopped:
            return
        given = {call for w in self.workers.values() if w.kind == "encode" for call in w.calls}
        waiting = [clip for clip in self._frames if clip not in given]
        is_full = sum(self._tokens.values()) > sum(self._credit.values())
        for number, worker in idle:
            if worker.kind == "encode":
                check(all(self._failed_on.get(clip) == number for clip in waiting), f"encoder {number} idles")
            elif worker.kind != "decode" or is_full or frames.get(worker.node):
                continue
            elif not self._has_reason(worker):
                raise ViolationError(f"decoder {number} idles")

    def _has_reason(self, worker: Known) -> bool:
        """Whether there is nothing that an idle decoder could do."""
        beside = (w for w in self.workers.values() if w.kind == "decode" and w.node == worker.node)
        is_reserved = any(isinstance(call, Clip) for w in beside for call in w.calls)
        return is_reserved or (not (self._unbegun - self._held()) and not self._found)

    def _held(self) -> set[Clip]:
        """Clips of units that decoders are at."""
        return {
            Clip(w.held.video_id, i)
            for w in self.workers.values()
            if w.held is not None
            for i in range(w.held.first, w.held.first + w.held.count)
        }

    def check_error(self, error: str) -> None:
        """A run may end with an error only where it cannot go on."""
        struck = self._cluster.struck
        if "cannot be written" in error:
            check(any(isinstance(s, str) and n >= WRITE_ATTEMPTS for s, n in struck.items()), error)
        elif "fail to start" in error:
            check(self._cluster.failed_starts >= START_ATTEMPTS, error)
        elif "could be encoded" in error:
            check(len(self._cluster.scenario.encode_harm) >= HOPELESS_CLIPS, error)
        elif "no node can hold" in error or "another version" in error:
            check(len(self._credit) < len(self._cluster.scenario.nodes), error)
        else:
            raise ViolationError(f"the run ends: {error}")

    def check_end(self) -> None:
        """Nothing is left anywhere after a run that finished by itself."""
        left = self._frames or self._tokens or self._cluster.objects or self._again or self._unbegun
        check(not left, f"left at the end: {left}")
        check(self._scheduler.is_empty, "the scheduler remembers what is settled")
