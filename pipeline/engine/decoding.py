"""What decoders do next: scan, or decode clips of which unit. Part of the scheduler."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine.intake import Intake
from pipeline.engine.ledger import Ledger, span_of
from pipeline.engine.messages import Clip, Command, DecodeClip, FindInputs, Scan, ShardUnit, Unit
from pipeline.engine.policy import CALLS_AHEAD, READY_CLIPS, SCANNING_SHARE, Policy
from pipeline.engine.staff import Node, Staff, Worker
from pipeline.values import Input


@dataclass(slots=True, eq=False)
class Run:
    """What is left of a unit, with the shards of its clips."""

    unit: Unit
    shards: deque[ShardUnit]

    def advance(self) -> bool:
        """One clip further; False at the end."""
        video_id, first, count = self.unit
        self.unit = Unit(video_id, first + 1, count - 1)
        shard_id, part = self.shards.popleft()
        if part.count > 1:
            self.shards.appendleft(ShardUnit(shard_id, Unit(video_id, part.first + 1, part.count - 1)))
        return count > 1


class Decoding:
    """The queue of units, and who is at which."""

    def __init__(self, policy: Policy, staff: Staff, ledger: Ledger, intake: Intake, out: list[Command]) -> None:
        self._policy, self._staff, self._ledger, self._intake, self._out = policy, staff, ledger, intake, out
        self._fresh: deque[Run] = deque()
        """In the order of the shards, so that shards close."""
        self._urgent: deque[Run] = deque()
        """What is done again goes before all else: a shard waits for it."""
        self._at: dict[int, Run] = {}
        """The unit that each decoder is at."""
        self._hungry: OrderedDict[int, None] = OrderedDict()
        """Decoders that found nothing to do."""
        self._ready_clips = 0
        """In the queues and at decoders, not begun."""
        self.scanning = 0
        self.is_stopped = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to scan or decode, now or later."""
        return not (self._ready_clips or self.scanning or self._intake.inputs)

    def add(self, units: Sequence[ShardUnit], *, sequential: bool) -> None:
        """Queue consecutive clips of a video; a sequential one goes to one decoder, which then reads it once."""
        clips = span_of(units).count
        size = clips if sequential else self._policy.unit_clips
        self._fresh += _cut(units, size)
        self._ready_clips += clips

    def again(self, clip: Clip, shard_id: str) -> None:
        """Decode one clip once more, before all else."""
        unit = Unit(clip.video_id, clip.index, 1)
        self._urgent.append(Run(unit, deque([ShardUnit(shard_id, unit)])))
        self._ready_clips += 1

    def scan_again(self, source: Input) -> None:
        """Scan an input once more, before the others."""
        self._intake.inputs.appendleft(source)

    def lose(self, worker: Worker) -> None:
        """A decoder is gone: what it had not begun of its unit goes to another."""
        self._hungry.pop(worker.number, None)
        worker.node.starved.pop(worker.number, None)
        run = self._at.pop(worker.number, None)
        if run is not None:
            self._urgent.appendleft(run)

    def feed_hungry(self, now_s: float) -> None:
        """Something may be there to do."""
        while self._hungry and (self._urgent or self._fresh or self._intake.inputs):
            number, _ = self._hungry.popitem(last=False)
            self.feed(self._staff.workers[number], now_s)
            if number in self._hungry:
                return

    def feed_starved(self, node: Node, now_s: float) -> None:
        """Frames have left the node's store."""
        while node.starved and self._has_credit(node):
            number, _ = node.starved.popitem(last=False)
            self.feed(self._staff.workers[number], now_s)

    def feed(self, worker: Worker, now_s: float) -> None:
        """Give a decoder calls, as many as it takes ahead."""
        while worker.is_ready and len(worker.calls) < CALLS_AHEAD and not self.is_stopped:
            run = self._at.get(worker.number)
            if run is None and self._should_scan():
                self._scan(worker, now_s)
                continue
            run = run or self._take_run()
            if run is None:
                self._hungry[worker.number] = None
                self._hungry.move_to_end(worker.number, last=bool(worker.calls))
                return
            self._hungry.pop(worker.number, None)
            self._at[worker.number] = run
            if not self._has_credit(worker.node):
                worker.node.starved[worker.number] = None
                return
            self._decode(worker, run, now_s)

    def _scan(self, worker: Worker, now_s: float) -> None:
        source = self._intake.inputs.popleft()
        self.scanning += 1
        self._hungry.pop(worker.number, None)
        worker.begin(source, now_s)
        self._out.append(Scan(worker.number, source))
        self.find_inputs()

    def find_inputs(self) -> None:
        """Ask for further inputs in time."""
        wanted = 16 + 2 * self._staff.count("decode")
        if self._intake.has_more and not self._intake.is_asked and len(self._intake.inputs) < wanted:
            self._intake.is_asked = True
            self._out.append(FindInputs(wanted))

    def _should_scan(self) -> bool:
        """Whether to scan rather than to decode: when there is nothing to decode, or soon nothing will be."""
        if not self._intake.inputs:
            return False
        if not (self._urgent or self._fresh):
            return True
        decoders = self._staff.count("decode")
        return self._ready_clips < READY_CLIPS * decoders and self.scanning * SCANNING_SHARE < decoders

    def _take_run(self) -> Run | None:
        if self._urgent:
            return self._urgent.popleft()
        if not self._fresh:
            return None
        shard = self._ledger.shards[self._fresh[0].shards[0].shard_id]
        if not shard.is_started and self._ledger.token_bytes > self._staff.store_credit_bytes:
            return None
        return self._fresh.popleft()

    def _has_credit(self, node: Node) -> bool:
        # One clip is always let through: a store may be smaller than the share asks for.
        return not node.frames_bytes or node.frames_bytes + self._policy.clip_bytes <= node.credit_bytes

    def _decode(self, worker: Worker, run: Run, now_s: float) -> None:
        clip, shard_id, rest = Clip(run.unit.video_id, run.unit.first), run.shards[0].shard_id, run.unit
        self._ready_clips -= 1
        self._ledger.start(clip, shard_id, worker.node, self._policy.clip_bytes)
        worker.begin(clip, now_s)
        self._out.append(DecodeClip(worker.number, clip, self._ledger.uri(clip), rest))
        if not run.advance():
            del self._at[worker.number]


def _cut(units: Sequence[ShardUnit], size: int) -> list[Run]:
    """Consecutive clips to runs of `size` clips; the last may be shorter."""
    runs = []
    whole = span_of(units)
    left = deque(units)
    for first in range(0, whole.count, size):
        count = min(size, whole.count - first)
        parts: deque[ShardUnit] = deque()
        while count:
            shard_id, unit = left.popleft()
            taken = min(count, unit.count)
            parts.append(ShardUnit(shard_id, Unit(unit.video_id, unit.first, taken)))
            if taken < unit.count:
                left.appendleft(ShardUnit(shard_id, Unit(unit.video_id, unit.first + taken, unit.count - taken)))
            count -= taken
        runs.append(Run(span_of(parts), parts))
    return runs
