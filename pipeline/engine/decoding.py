"""What decoders do next: scan an input, or decode the clips of a unit. Part of the scheduler."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.engine.commands import Command, DecodeClip, FindInputs, Scan
from pipeline.engine.intake import Intake
from pipeline.engine.ledger import Ledger, span_of
from pipeline.engine.policy import ASKING_SHARE, CALLS_AHEAD, QUEUED_SCAN_BYTES, READY_CLIPS, SCANNING_SHARE, Policy
from pipeline.engine.worker_pool import Node, Worker, WorkerPool
from pipeline.inputs.named import Input
from pipeline.plan.units import Clip, ShardUnit, Unit


@dataclass(slots=True, eq=False)
class PendingUnit:
    """The clips of a unit that are not decoded yet, with their shards."""

    unit: Unit
    shards: deque[ShardUnit]
    is_alone: bool = False
    """Whether no other clips may be added."""

    def join(self, clip: Clip, shard_id: str, most: int) -> bool:
        """Add a clip that directly precedes or follows, up to `most` clips; False if it does not fit."""
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
        """Remove the first clip; False if none is left."""
        video_id, first, count = self.unit
        self.unit = Unit(video_id, first + 1, count - 1)
        shard_id, part = self.shards.popleft()
        if part.count > 1:
            self.shards.appendleft(ShardUnit(shard_id, Unit(video_id, part.first + 1, part.count - 1)))
        return count > 1


class Decoding:
    """The queues of units, and the unit that each decoder works on."""

    def __init__(self, policy: Policy, pool: WorkerPool, ledger: Ledger, intake: Intake, out: list[Command]) -> None:
        self._policy, self._pool, self._ledger, self._intake, self._out = policy, pool, ledger, intake, out
        self._fresh: deque[PendingUnit] = deque()
        """In the order of the shards, so that shards close."""
        self._urgent: deque[PendingUnit] = deque()
        """Clips to be repeated. They go first, because a shard waits for them."""
        self._at: dict[int, PendingUnit] = {}
        """The unit that each decoder works on."""
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Decoders that found nothing to do."""
        self._ready_clips = 0
        """In the queues. A long sequential unit counts as one of normal size, as only one decoder can work on it."""
        self.scanning = 0
        self.is_stopped = False

    def add(self, units: Sequence[ShardUnit], *, sequential: bool) -> None:
        """Queue clips of a video. A sequential video is one unit, so that one decoder reads it once."""
        for stretch in _stretches(units):
            size = span_of(stretch).count if sequential else self._policy.unit_clips
            for pending in _cut(stretch, size):
                self._fresh.append(pending)
                self._ready_clips += self._weight(pending)

    def decode_again(self, clip: Clip, shard_id: str, *, alone: bool) -> None:
        """Queue one clip again, before all others; `alone` if it may kill its worker."""
        if not alone and self._urgent:
            most = self._policy.unit_clips
            if self._ledger.videos[clip.video_id].plan.is_sequential:
                most = self._ledger.videos[clip.video_id].plan.num_clips
            for pending in (self._urgent[0], self._urgent[-1]):
                before = self._weight(pending)
                if not pending.is_alone and pending.join(clip, shard_id, most):
                    self._ready_clips += self._weight(pending) - before
                    return
        unit = Unit(clip.video_id, clip.index, 1)
        self._queue_urgent(PendingUnit(unit, deque([ShardUnit(shard_id, unit)]), alone))

    def scan_again(self, source: Input) -> None:
        """Scan an input once more, before the others."""
        self._intake.inputs.appendleft(source)

    def worker_gone(self, worker: Worker) -> None:
        """Give the rest of a lost decoder's unit to another."""
        self._idle.pop(worker.number, None)
        worker.node.blocked.pop(worker.number, None)
        pending = self._at.pop(worker.number, None)
        if pending is not None:
            self._queue_urgent(pending)

    def assign_to_idle(self, now_s: float) -> None:
        """Give idle decoders what there is to do. What the first cannot begin, none can."""
        while self._idle and (self._urgent or self._fresh or self._intake.inputs):
            number, _ = self._idle.popitem(last=False)
            self.assign(self._pool.workers[number], now_s)
            if number in self._idle:
                return

    def assign_to_blocked(self, node: Node, now_s: float) -> None:
        """Let decoders go on after frames have left their node's store."""
        while node.blocked and self._has_credit(node):
            number, _ = node.blocked.popitem(last=False)
            self.assign(self._pool.workers[number], now_s)

    def assign(self, worker: Worker, now_s: float) -> None:
        """Give a decoder calls until it has `CALLS_AHEAD`."""
        self._idle.pop(worker.number, None)
        worker.node.blocked.pop(worker.number, None)
        while self._has_room(worker):
            pending = self._at.get(worker.number)
            if pending is None and self._should_scan():
                self._scan(worker, now_s)
            elif not self._has_credit(worker.node):
                worker.node.blocked[worker.number] = None
                return
            elif pending is None and (pending := self._take_unit()) is None:
                self._idle[worker.number] = None
                self._idle.move_to_end(worker.number, last=bool(worker.calls))
                return
            else:
                self._decode(worker, pending, now_s)

    def _has_room(self, worker: Worker) -> bool:
        """Whether a decoder can be given a call. Nothing is queued behind a scan that may take long."""
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
        """Ask for further inputs, or planned work, before they run out; not while much is ready to be decoded."""
        decoders = self._pool.count("decode")
        wanted = 16 + 2 * decoders
        is_low = self._ready_clips < ASKING_SHARE * READY_CLIPS * max(1, decoders)
        if is_low and self._intake.has_more and not self._intake.is_asked and len(self._intake.inputs) < wanted:
            self._intake.is_asked = True
            self._out.append(FindInputs(wanted))

    def _should_scan(self) -> bool:
        """Whether to scan rather than to decode: when there is nothing to decode, or soon nothing will be."""
        if not self._intake.inputs:
            return False
        if not (self._urgent or self._fresh):
            return True
        decoders = self._pool.count("decode")
        return self._ready_clips < READY_CLIPS * decoders and self.scanning * SCANNING_SHARE < decoders

    def _take_unit(self) -> PendingUnit | None:
        """The next unit, urgent ones first. While tokens fill the stores, no further shard is started."""
        is_full = self._ledger.token_bytes > self._pool.store_credit_bytes
        for queue, choice in ((self._urgent, len(self._urgent)), (self._fresh, 1)):
            for i in range(min(choice, len(queue))):
                if not is_full or self._ledger.shards[queue[i].shards[0].shard_id].is_started:
                    pending = queue[i]
                    del queue[i]
                    self._ready_clips -= self._weight(pending)
                    self.find_inputs()
                    return pending
        return None

    def _queue_urgent(self, pending: PendingUnit) -> None:
        self._urgent.append(pending)
        self._ready_clips += self._weight(pending)

    def _weight(self, pending: PendingUnit) -> int:
        return min(pending.unit.count, self._policy.unit_clips)

    def _has_credit(self, node: Node) -> bool:
        # One clip is always let through: a store may be smaller than the share asks for.
        return not node.frames_bytes or node.frames_bytes + self._policy.clip_bytes <= node.credit_bytes

    def _decode(self, worker: Worker, pending: PendingUnit, now_s: float) -> None:
        clip, shard_id, rest = Clip(pending.unit.video_id, pending.unit.first), pending.shards[0].shard_id, pending.unit
        self._ledger.start(clip, shard_id, worker.node, self._policy.clip_bytes)
        worker.begin(clip, now_s)
        self._out.append(DecodeClip(worker.number, clip, self._ledger.uri(clip), rest))
        if pending.advance():
            self._at[worker.number] = pending
        else:
            self._at.pop(worker.number, None)


def _stretches(units: Sequence[ShardUnit]) -> Iterator[list[ShardUnit]]:
    """Units of one video in groups without gaps: clips between them may be done already."""
    stretch: list[ShardUnit] = []
    for shard_id, unit in units:
        if stretch and unit.first != stretch[-1].unit.first + stretch[-1].unit.count:
            yield stretch
            stretch = []
        stretch.append(ShardUnit(shard_id, unit))
    if stretch:
        yield stretch


def _cut(units: Sequence[ShardUnit], size: int) -> list[PendingUnit]:
    """Cut consecutive clips into units of `size` clips; the last may be shorter."""
    pieces = []
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
        pieces.append(PendingUnit(span_of(parts), parts))
    return pieces
