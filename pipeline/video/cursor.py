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
from dataclasses import dataclass
from typing import NamedTuple

from av import VideoFrame

from pipeline.video.backend import Answer, Backend
from pipeline.video.keys import Keys
from pipeline.video.packets import PacketSource, StreamPacket
from pipeline.video.spreading import Spreading

TRIALS = 2
"""Wanted pictures of undamaged groups that do not come out, before leaving out anything is given up for a stream."""
START = -1
"""The group of what comes before all key frames: it is decoded from the start of the file."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is on display at a wanted tick."""

    tick: int
    frame: VideoFrame | None
    """None where nothing came out yet."""
    damaged: bool
    """Whether it is not what the stream meant: damaged, predicted from damage, or in place of a lost picture."""

    @property
    def came(self) -> bool:
        """Whether the frame is that of the tick itself."""
        return self.frame is not None and self.frame.pts == self.tick


class Out(NamedTuple):
    """A picture that came out of the decoder."""

    tick: int
    frame: VideoFrame
    damaged: bool


class _Sent(NamedTuple):
    """A packet whose picture is still to come out."""

    damaged: bool
    droppable: bool


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
        self._source, self._strict, self._lenient, self._keys = source, strict, lenient, keys
        self._backend = strict
        self._missing, self._step = frozenset(missing), step
        self._drop = drop and watch is None
        self._watch = watch
        self._trials = TRIALS
        self._whole_keys: set[int] = set()
        """Ticks of the keys whose groups are decoded whole: they are damaged, or leaving out failed."""
        self._damaged_keys: set[int] = set()
        """Those of them that are known to be damaged."""
        self._bad_starts: set[int] = set()
        """Ticks of the keys that do not make pictures whole as they say: their groups belong to the ones before."""
        self._bad_packets: set[int] = set()
        """Ticks of packets in which the strict decoder noticed damage."""
        self._wanted: frozenset[int] = frozenset()
        self._last_wanted = 0
        self._reset()
        self._reading = False

    def _reset(self) -> None:
        self._sent: dict[int, _Sent] = {}
        self._outs: deque[Out] = deque()
        self._shown: Out | None = None
        self._spreading = Spreading()
        self._last_dts: int | None = None
        self._ended = False
        """Whether the file was read to its end."""
        self._came_out = False

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
        group = self._governing(tick)
        leave = following is not None and self._governing(following) > max(group, self._reached())
        leave = leave and self._watch is None
        fresh = not self._goes_on_to(tick, group, first)
        good = self._from_its_key(tick, leave) if fresh else self._decode_up_to(tick, leave)
        if not good and self._watch is None:
            # By definition a group with damage is decoded whole; so is one of which a picture does not come out.
            key = self._key_tick(self._governing(tick))
            if self._start != key or key not in self._whole_keys:
                self._note_whole(key, tick)
                fresh, good = True, self._from_its_key(tick)
                key = self._key_tick(self._governing(tick))
            if not good and self._spreading.active and key not in self._damaged_keys:
                self._whole_keys.add(key)
                self._damaged_keys.add(key)
                good = self._from_its_key(tick)
            if fresh and not self._came(tick) and tick not in self._missing and key not in self._damaged_keys:
                self._trials = max(self._trials - 1, 0)
                self._start_earlier(tick, self._governing(tick))
        shown = self._shown
        if shown is None:
            return Shown(tick, None, True)
        return Shown(tick, shown.frame, shown.damaged or shown.tick != tick)

    def _from_its_key(self, tick: int, leave: bool = False) -> bool:
        """Start at the key frame that governs `tick`, and at an earlier one where that turns out not to."""
        while True:
            self._begin(self._governing(tick))
            good = self._decode_up_to(tick, leave)
            if self._start not in self._bad_starts:
                return good

    def _note_whole(self, key: int, tick: int) -> None:
        self._whole_keys.add(key)
        if self._spreading.active or (self._shown is not None and self._shown.tick == tick and self._shown.damaged):
            self._damaged_keys.add(key)

    def _start_earlier(self, tick: int, group: int) -> None:
        """Starting at a key frame is not always exact: containers call frames so that are none."""
        for start in self._keys.starts(tick):
            if start < group:
                self._begin(start, whole=True)
                if self._decode_up_to(tick, False):
                    self._start = self._key_tick(group)
                    return

    # The position.

    def _governing(self, tick: int) -> int:
        """The group whose key frame makes the picture at `tick` whole."""
        group = self._keys.governing(tick)
        while self._bad_starts and self._key_tick(group) in self._bad_starts:
            group -= 1
        return group

    def _key_tick(self, group: int) -> int:
        return int(self._keys.ticks[group]) if group >= 0 else START

    def _reached(self) -> int:
        """The group whose key frame was read last."""
        return START if self._source.key_tick is None else self._keys.position(self._source.key_tick)

    def _goes_on_to(self, tick: int, group: int, first: bool) -> bool:
        """Whether the picture at `tick` still comes by reading on from here."""
        if not (self._reading or self._ended) or (self._shown is not None and self._shown.tick > tick):
            return False
        if (self._watch is not None and not first) or self._came(tick):
            return True
        key = self._key_tick(group)
        if not self._trials and key not in self._damaged_keys:
            # Key frames of this stream are not to be relied on: it is read on while that lasts.
            return self._is_out_or_sent(tick) or (self._reading and group <= self._reached() + 1)
        if self._whole and self._start == key:
            return True
        if key in self._whole_keys:
            return False
        if self._is_out_or_sent(tick):
            return True
        if self._ended or group > self._reached() + (not self._drop):
            return False
        return not self._spreading.reaches(tick) and (not self._whole or not self._drop)

    def _is_out_or_sent(self, tick: int) -> bool:
        return tick in self._sent or any(out.tick == tick for out in self._outs)

    def _begin(self, group: int, *, whole: bool = False) -> None:
        """Start decoding at the key frame of a group."""
        key = self._key_tick(group)
        self._backend.flush()
        self._backend = self._lenient if key in self._damaged_keys else self._strict
        self._backend.flush()
        ahead = key - self._source.key_tick if self._source.key_tick is not None else 0
        near = 0 < ahead < self._source.reading_is_nearer_than
        if group == START or not ((near and self._source.forward_to(key)) or self._source.seek_to(key)):
            # Also where the key is not found again: whatever comes from the start of the file has to do.
            self._source.rewind()
        self._reset()
        self._reading, self._start = True, key
        self._whole = whole or key in self._whole_keys or not self._trials or not self._drop
        self._whole_from = int(self._keys.whole_from[group]) if group != START else None

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
            if not known and not self._whole and (self._spreading.reaches(tick) or tick in self._missing):
                break
            found = None if leave and known else self._source.read()
            if found is None:
                self._reading, self._ended = False, not (leave and known)
                self._take(self._backend.drain())
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
        tick, coded = found.tick, found.coded
        if self._is_unneeded(found):
            return
        if coded.key and tick is not None:
            self._heal_at(tick)
        # What is shown before the key frame that was started from may lack what it refers to, and is not wanted.
        leading = self._whole_from is not None and tick is not None and tick < self._whole_from
        if self._is_missing_before(found):
            self._spreading.begin(tick)
        answer = self._backend.send(found.packet)
        noticed = found.damaged or answer.damaged
        if noticed and leading and tick is not None and tick >= self._start:
            # Of a refresh bit by bit every part counts. Some decoders also lack a reference right at its start.
            self._bad_starts.add(self._start)
        damaged = not leading and (noticed or tick in self._bad_packets)
        if damaged and not coded.droppable:
            self._spreading.begin(tick)
        if damaged and tick is not None and self._backend is self._strict:
            self._bad_packets.add(tick)
        # Of packets that an edit list hides, no picture comes.
        expected = coded.picture is not False and not found.packet.is_discard
        if tick is not None and (expected or tick in self._sent):
            before = tick in self._sent and self._sent[tick].damaged
            self._sent[tick] = _Sent(
                damaged or before or self._spreading.reaches(tick), coded.droppable or coded.picture is None
            )
        self._take(answer)

    def _is_unneeded(self, found: StreamPacket) -> bool:
        # Past the last wanted tick all are taken in: the next call goes on from there.
        tick = found.tick
        if self._whole or not found.coded.droppable or tick is None:
            return False
        return tick not in self._wanted and tick < self._last_wanted

    def _heal_at(self, key_tick: int) -> None:
        """A key frame ends the spreading of damage, where it is known from which tick on it makes pictures whole."""
        place = self._keys.position(key_tick)
        if place >= 0 and self._key_tick(place) == key_tick:
            self._spreading.heal(key_tick, int(self._keys.whole_from[place]))

    def _is_missing_before(self, found: StreamPacket) -> bool:
        """Whether packets are missing between the last one and this, where only their times tell."""
        before, self._last_dts = self._last_dts, found.packet.dts
        if not self._step or before is None or found.packet.dts is None or found.coded.key:
            return False
        return 2 * (found.packet.dts - before) > 3 * self._step

    def _take(self, answer: Answer) -> None:
        for frame in answer.frames:
            tick = frame.pts
            # A picture without a tick is never asked for.
            if tick is None:
                continue
            leading = self._whole_from is not None and tick < self._whole_from
            sent = self._sent.pop(tick, None)
            damaged = self._spreading.reaches(tick) if sent is None else sent.damaged
            lost = [other for other in self._sent if other < tick]
            if not leading and not damaged and frame.is_corrupt:
                damaged = True
                if sent is None or not sent.droppable:
                    self._spread_back(tick)
            for other in lost:
                gone = self._sent.pop(other)
                if self._came_out and not gone.droppable and not gone.damaged:
                    self._spread_back(tick)
            self._came_out = self._came_out or not leading
            self._outs.append(Out(tick, frame, damaged))

    def _spread_back(self, tick: int) -> None:
        """Damage was noticed late: what was decoded since is damaged as well."""
        self._spreading.begin(tick)
        self._sent = {other: sent._replace(damaged=True) for other, sent in self._sent.items()}
