"""Wanted ticks in, pictures out: one loop over the packets of a stream, whose position is kept from call to call.

A picture is the same however the wanted ticks are split over calls, cursors and processes. Where nothing is damaged,
all ways of decoding give the same picture. Where a group of pictures is damaged, its pictures are by definition what
comes of decoding every packet from its key frame on; so a cursor that meets damage goes back to that key frame, once.

A packet that others may refer to, and that is damaged or missing, damages whatever is decoded after it, up to the next
key frame (`spreading.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from av import VideoFrame

from pipeline.video.backend import Backend
from pipeline.video.expected import Expected
from pipeline.video.keys import Keys
from pipeline.video.packets import PacketSource, StreamPacket
from pipeline.video.shown import Out, Shown
from pipeline.video.starts import START, Position, Starts


class Cursor:
    """A position in one stream.

    Args:
        source: its packets.
        strict: decodes them, and notices as much damage as it can.
        lenient: decodes what is damaged; the same, where one decoder does both.
        keys: where decoding may start.
        missing: ticks of pictures whose packets the file lacks, increasing.
        step: ticks from one packet to the next in decoding order, where something is missing; 0 where a codec's own
            numbers tell what is.
        drop: leave out what no wanted picture needs.
        watch: is shown every frame that comes out, in display order; then nothing is left out.
    """

    def __init__(
        self,
        source: PacketSource,
        strict: Backend,
        lenient: Backend,
        keys: Keys,
        *,
        missing: Sequence[int] = (),
        step: int = 0,
        drop: bool = True,
        watch: Callable[[VideoFrame], None] | None = None,
    ) -> None:
        self._source, self._strict, self._lenient, self._starts = source, strict, lenient, Starts(keys)
        self._backend = strict
        self._missing, self._step = frozenset(missing), step
        self._drop = drop and watch is None
        self._watch = watch
        self._bad_packets: set[int] = set()
        """Ticks of packets in which the strict decoder noticed damage."""
        self._wanted: frozenset[int] = frozenset()
        self._last_wanted = 0
        self._reset(None)
        self._reading = False

    def _reset(self, whole_from: int | None) -> None:
        self._expected = Expected(whole_from)
        self._outs: deque[Out] = deque()
        self._shown: Out | None = None
        self._last_dts: int | None = None
        self._ended = False
        """Whether the file was read to its end."""

    def restart(self) -> None:
        """Begin the next ticks at their own key frame, wherever the cursor stands."""
        self._reading = self._ended = False

    def show(self, ticks: Sequence[int]) -> Iterator[Shown]:
        """What is on display at each of `ticks`.

        Args:
            ticks: increasing. They may lie before those of the last call, at the price of another start.

        Raises:
            DecodeError: the file cannot be read any more.
        """
        self._wanted, self._last_wanted = frozenset(ticks), max(ticks, default=0)
        for number, tick in enumerate(ticks):
            following = ticks[number + 1] if number + 1 < len(ticks) else None
            yield self._show(tick, following, first=not number)

    def _show(self, tick: int, following: int | None, *, first: bool) -> Shown:
        starts = self._starts
        group = starts.governing(tick)
        leave = following is not None and starts.governing(following) > max(group, self._reached())
        leave = leave and self._watch is None
        fresh = not self._goes_on_to(tick, group, first)
        good = self._from_its_key(tick, leave) if fresh else self._decode_up_to(tick, leave)
        if not good and self._watch is None:
            # By definition a group with damage is decoded whole; so is one of which a picture does not come out.
            key = starts.governing_key(tick)
            if self._start != key or not starts.is_whole(key):
                starts.note_whole(key, damaged=self._met_damage(tick))
                fresh, good = True, self._from_its_key(tick)
                key = starts.governing_key(tick)
            if not good and self._expected.spreading.active and not starts.is_damaged(key):
                starts.note_whole(key, damaged=True)
                good = self._from_its_key(tick)
            if fresh and not self._came(tick) and tick not in self._missing and not starts.is_damaged(key):
                starts.note_missed()
                self._start_earlier(tick, starts.governing(tick))
        shown = self._shown
        if shown is None:
            return Shown(tick, None, True)
        return Shown(tick, shown.frame, shown.damaged or shown.tick != tick)

    def _from_its_key(self, tick: int, leave: bool = False) -> bool:
        """Start at the key frame that governs `tick`, and at an earlier one where that turns out not to."""
        while True:
            self._begin(self._starts.governing(tick))
            good = self._decode_up_to(tick, leave)
            if not self._starts.is_misleading(self._start):
                return good

    def _met_damage(self, tick: int) -> bool:
        """Whether it is damage for which the picture at `tick` is not good."""
        shown = self._shown
        return self._expected.spreading.active or (shown is not None and shown.tick == tick and shown.damaged)

    def _start_earlier(self, tick: int, group: int) -> None:
        """Starting at a key frame is not always exact: containers call frames so that are none."""
        for start in self._starts.before(tick, group):
            self._begin(start, whole=True)
            if self._decode_up_to(tick, False):
                self._start = self._starts.key_tick(group)
                return

    # The position.

    def _reached(self) -> int:
        """The group whose key frame was read last."""
        return self._starts.group_at(self._source.key_tick)

    def _goes_on_to(self, tick: int, group: int, first: bool) -> bool:
        """Whether the picture at `tick` still comes by reading on from here."""
        if not (self._reading or self._ended) or (self._shown is not None and self._shown.tick > tick):
            return False
        if (self._watch is not None and not first) or self._came(tick):
            return True
        return self._starts.is_reached_by(
            Position(self._start, self._reached(), self._whole, self._ended, self._drop),
            group,
            is_coming=self._is_out_or_sent(tick),
            is_spoilt=self._expected.spreading.reaches(tick),
        )

    def _is_out_or_sent(self, tick: int) -> bool:
        return tick in self._expected or any(out.tick == tick for out in self._outs)

    def _begin(self, group: int, *, whole: bool = False) -> None:
        """Start decoding at the key frame of a group."""
        key = self._starts.key_tick(group)
        self._backend.flush()
        self._backend = self._lenient if self._starts.is_damaged(key) else self._strict
        self._backend.flush()
        ahead = key - self._source.key_tick if self._source.key_tick is not None else 0
        near = 0 < ahead < self._source.reading_is_nearer_than
        if group == START or not ((near and self._source.forward_to(key)) or self._source.seek_to(key)):
            # Also where the key is not found again: whatever comes from the start of the file has to do.
            self._source.rewind()
        self._reset(self._starts.whole_from(group))
        self._reading, self._start = True, key
        self._whole = whole or self._starts.is_whole(key) or not self._starts.leaves_out or not self._drop

    # Decoding.

    def _decode_up_to(self, tick: int, leave: bool) -> bool:
        """Read on until the picture on display at `tick` is out.

        Args:
            tick: wanted.
            leave: whether nothing is wanted of what follows in the stream, so that the decoder may be drained.

        Returns:
            Whether it is the picture that the stream means.
        """
        while not self._is_settled(tick):
            if not self._reading:
                break
            known = self._is_out_or_sent(tick)
            if not known and not self._whole and (self._expected.spreading.reaches(tick) or tick in self._missing):
                break
            found = None if leave and known else self._source.read()
            if found is None:
                self._reading, self._ended = False, not (leave and known)
                self._outs.extend(self._expected.come_out(self._backend.drain().frames))
                continue
            self._send(found)
            dts = found.packet.dts
            if dts is not None and dts > tick and not self._whole and not self._is_out_or_sent(tick):
                # Decoding times increase and no picture is shown before it is decoded: this one is not there.
                break
        return self._came(tick) and self._shown is not None and not self._shown.damaged

    def _is_settled(self, tick: int) -> bool:
        """Put on display what is due at `tick`; whether nothing that comes can change it."""
        while self._outs and self._outs[0].tick <= tick:
            self._shown = self._outs.popleft()
            if self._watch is not None:
                self._watch(self._shown.frame)
        return self._came(tick) or bool(self._outs)

    def _came(self, tick: int) -> bool:
        return self._shown is not None and self._shown.tick == tick

    def _send(self, found: StreamPacket) -> None:
        tick, coded, expected = found.tick, found.coded, self._expected
        if self._is_unneeded(found):
            return
        if coded.key and tick is not None:
            self._heal_at(tick)
        # What is shown before the key frame that was started from may lack what it refers to, and is not wanted.
        leading = tick is not None and expected.is_leading(tick)
        if self._is_missing_before(found):
            expected.spreading.begin(tick)
        answer = self._backend.send(found.packet)
        noticed = found.damaged or answer.damaged
        if noticed and leading and tick is not None and tick >= self._start:
            # Of a refresh bit by bit every part counts. Some decoders also lack a reference right at its start.
            self._starts.note_misleading(self._start)
        damaged = not leading and (noticed or tick in self._bad_packets)
        if damaged and not coded.droppable:
            expected.spreading.begin(tick)
        if damaged and tick is not None and self._backend is self._strict:
            self._bad_packets.add(tick)
        # Of packets that an edit list hides, no picture comes.
        is_shown = coded.picture is not False and not found.packet.is_discard
        if tick is not None and (is_shown or tick in expected):
            expected.add(tick, damaged=damaged, droppable=coded.droppable or coded.picture is None)
        self._outs.extend(expected.come_out(answer.frames))

    def _is_unneeded(self, found: StreamPacket) -> bool:
        # Past the last wanted tick all are taken in: the next call goes on from there.
        tick = found.tick
        if self._whole or not found.coded.droppable or tick is None:
            return False
        return tick not in self._wanted and tick < self._last_wanted

    def _heal_at(self, key_tick: int) -> None:
        """A key frame ends the spreading of damage, where it is known from which tick on it makes pictures whole."""
        whole_from = self._starts.heals_from(key_tick)
        if whole_from is not None:
            self._expected.spreading.heal(key_tick, whole_from)

    def _is_missing_before(self, found: StreamPacket) -> bool:
        """Whether packets are missing between the last one and this, where only their times tell."""
        before, self._last_dts = self._last_dts, found.packet.dts
        if not self._step or before is None or found.packet.dts is None or found.coded.key:
            return False
        return 2 * (found.packet.dts - before) > 3 * self._step
