"""What decoders do next: scan, or decode clips of which unit. Part of the scheduler."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.engine.intake import Intake
from pipeline.engine.ledger import Ledger, span_of
from pipeline.engine.messages import Command, DecodeClip, FindInputs, Scan
from pipeline.engine.policy import CALLS_AHEAD, QUEUED_SCAN_BYTES, READY_CLIPS, SCANNING_SHARE, Policy
from pipeline.engine.staff import Node, Staff, Worker
from pipeline.plan.units import Clip, ShardUnit, Unit
from pipeline.values import Input


@dataclass(slots=True, eq=False)
class Run:
    """What is left of a unit, with the shards of its clips."""

    unit: Unit
    shards: deque[ShardUnit]
    is_alone: bool = False
    """Whether nothing may join."""

    def join(self, clip: Clip, shard_id: str, most: int) -> bool:
        """Take in a clip that comes right before or after, up to so many clips; False where it does not fit."""
        video_id, first, count = self.unit
        if video_id != clip.video_id or count >= most or clip.index not in (first - 1, first + count):
            return False
        part = ShardUnit(shard_id, Unit(video_id, clip.index, 1))
        if clip.index < first:
            self.shards.appendleft(part)
        else:
            self.shards.append(part)
        self.unit = Unit(video_id, min(first, clip.index), count + 1)
        return True

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
        """In the queues. What one decoder must do alone counts as one unit."""
        self.scanning = 0
        self.is_stopped = False

    def add(self, units: Sequence[ShardUnit], *, sequential: bool) -> None:
        """Queue clips of a video; a sequential one goes to one decoder, which then reads it once."""
        for stretch in _stretches(units):
            size = span_of(stretch).count if sequential else self._policy.unit_clips
            for run in _cut(stretch, size):
                self._fresh.append(run)
                self._ready_clips += self._weight(run)

    def again(self, clip: Clip, shard_id: str, *, alone: bool) -> None:
        """Decode one clip once more, before all else; `alone` if it may be poison, so that nothing waits behind it."""
        if not alone and self._urgent:
            most = self._policy.unit_clips
            if self._ledger.videos[clip.video_id].plan.is_sequential:
                most = self._ledger.videos[clip.video_id].plan.num_clips
            for run in (self._urgent[0], self._urgent[-1]):
                before = self._weight(run)
                if not run.is_alone and run.join(clip, shard_id, most):
                    self._ready_clips += self._weight(run) - before
                    return
        unit = Unit(clip.video_id, clip.index, 1)
        self._queue_urgent(Run(unit, deque([ShardUnit(shard_id, unit)]), alone))

    def scan_again(self, source: Input) -> None:
        """Scan an input once more, before the others."""
        self._intake.inputs.appendleft(source)

    def lose(self, worker: Worker) -> None:
        """A decoder is gone: what it had not begun of its unit goes to another."""
        self._hungry.pop(worker.number, None)
        worker.node.starved.pop(worker.number, None)
        run = self._at.pop(worker.number, None)
        if run is not None:
            self._queue_urgent(run)

    def feed_hungry(self, now_s: float) -> None:
        """Something may be there to do. What one of them cannot begin, none of them can."""
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
        self._hungry.pop(worker.number, None)
        worker.node.starved.pop(worker.number, None)
        while self._has_room(worker):
            run = self._at.get(worker.number)
            if run is None and self._should_scan():
                self._scan(worker, now_s)
            elif not self._has_credit(worker.node):
                worker.node.starved[worker.number] = None
                return
            elif run is None and (run := self._take_run()) is None:
                self._hungry[worker.number] = None
                self._hungry.move_to_end(worker.number, last=bool(worker.calls))
                return
            else:
                self._decode(worker, run, now_s)

    def _has_room(self, worker: Worker) -> bool:
        """Whether a decoder can be given a call. Behind a scan that may take long nothing is queued."""
        if not worker.is_ready or len(worker.calls) >= CALLS_AHEAD or self.is_stopped:
            return False
        last = worker.calls[-1] if worker.calls else None
        return not isinstance(last, Input) or 0 <= last.size_bytes <= QUEUED_SCAN_BYTES

    def _scan(self, worker: Worker, now_s: float) -> None:
        source = self._intake.inputs.popleft()
        self.scanning += 1
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
        """What is urgent goes first. While tokens fill the stores, no further shard is started."""
        is_full = self._ledger.token_bytes > self._staff.store_credit_bytes
        for queue, choice in ((self._urgent, len(self._urgent)), (self._fresh, 1)):
            for i in range(min(choice, len(queue))):
                if not is_full or self._ledger.shards[queue[i].shards[0].shard_id].is_started:
                    run = queue[i]
                    del queue[i]
                    self._ready_clips -= self._weight(run)
                    return run
        return None

    def _queue_urgent(self, run: Run) -> None:
        self._urgent.append(run)
        self._ready_clips += self._weight(run)

    def _weight(self, run: Run) -> int:
        return min(run.unit.count, self._policy.unit_clips)

    def _has_credit(self, node: Node) -> bool:
        # One clip is always let through: a store may be smaller than the share asks for.
        return not node.frames_bytes or node.frames_bytes + self._policy.clip_bytes <= node.credit_bytes

    def _decode(self, worker: Worker, run: Run, now_s: float) -> None:
        clip, shard_id, rest = Clip(run.unit.video_id, run.unit.first), run.shards[0].shard_id, run.unit
        self._ledger.start(clip, shard_id, worker.node, self._policy.clip_bytes)
        worker.begin(clip, now_s)
        self._out.append(DecodeClip(worker.number, clip, self._ledger.uri(clip), rest))
        if run.advance():
            self._at[worker.number] = run
        else:
            self._at.pop(worker.number, None)


def _stretches(units: Sequence[ShardUnit]) -> Iterator[list[ShardUnit]]:
    """Units of one video in groups without gaps: what lies between may be done already."""
    stretch: list[ShardUnit] = []
    for shard_id, unit in units:
        if stretch and unit.first != stretch[-1].unit.first + stretch[-1].unit.count:
            yield stretch
            stretch = []
        stretch.append(ShardUnit(shard_id, unit))
    if stretch:
        yield stretch


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
