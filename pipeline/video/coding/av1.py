"""AV1 packets, each a temporal unit (AV1 bitstream specification, 5.5 and 5.9): shown, key, droppable, out of order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipeline.video.coding.bits import Bits, OutOfBitsError
from pipeline.video.coding.facts import BROKEN, NOTHING, Coded, Data

SEQUENCE, FRAME_HEADER, FRAME, REDUNDANT = 1, 3, 6, 7
KEY_FRAME, INTRA_ONLY, SWITCH = 0, 2, 3
CHOOSE = 2
HEADER_BYTES = 40
ALL_SLOTS = 0xFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """What frame headers need of a sequence header."""

    reduced: bool = False
    model_bits: int = 0
    """Bits of buffer_removal_time; 0 without a decoder model."""
    removal_points: tuple[int, ...] = ()
    """operating_point_idc of the operating points that have one."""
    presentation_bits: int = 0
    """Bits of frame_presentation_time; 0 where frames have none."""
    frame_id_bits: int = 0
    screen_tools: int = CHOOSE
    integer_mv: int = CHOOSE
    order_bits: int = 0


@dataclass(frozen=True, slots=True)
class _Frame:
    shown: bool
    key: bool
    refreshes: int
    order: int | None


class Av1Headers:
    """Reads the packets of one stream; keeps the order numbers of the eight reference slots.

    Frames are numbered in the order of display. What is shown next always has a higher number, by one where the stream
    went on by ones so far: anything else is a picture that the stream did not mean.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._sequence: Sequence | None = None
        self.restart()
        # av1C: four bytes, then units (AV1 codec ISO media file format binding, 2.3.3).
        with suppress(OutOfBitsError):
            for kind, payload, _ in _units((extradata or b"")[4:]):
                if kind == SEQUENCE:
                    self._keep(payload)

    def restart(self) -> None:
        """Forget what came before."""
        self._slots: list[int | None] = [None] * 8
        self._shown: int | None = None
        self._by_ones = True

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """What the next temporal unit is."""
        if not len(data):
            return NOTHING
        shown = key = False
        droppable, orderly = True, True
        found = 0
        try:
            for kind, payload, extension in _units(data):
                if kind == SEQUENCE:
                    self._keep(payload)
                elif kind in (FRAME, FRAME_HEADER):
                    if self._sequence is None:
                        return BROKEN
                    frame = self._frame(Bits(bytes(payload[:HEADER_BYTES])), extension)
                    key = key or (frame.key and frame.shown and not found)
                    found += 1
                    shown = shown or frame.shown
                    droppable = droppable and not frame.refreshes
                    orderly = self._place(frame) and orderly
        except OutOfBitsError:
            return BROKEN
        if not found:
            return BROKEN
        return Coded(picture=shown, key=key, droppable=droppable, gap=not orderly)

    def _place(self, frame: _Frame) -> bool:
        """Note where a frame goes; whether it is shown in its turn."""
        if frame.shown and frame.key:
            self._shown, self._by_ones = frame.order, True
            self._slots = [frame.order] * 8
            return True
        for slot in range(8):
            if frame.refreshes >> slot & 1:
                self._slots[slot] = frame.order
        if not frame.shown or self._sequence is None or not self._sequence.order_bits:
            return True
        before, self._shown = self._shown, frame.order
        if before is None or frame.order is None:
            return True
        size = 1 << self._sequence.order_bits
        step = (frame.order - before) % size
        in_turn = step == 1 or (0 < step < size // 2 and not self._by_ones)
        self._by_ones = self._by_ones and step == 1
        return in_turn

    def _frame(self, bits: Bits, extension: tuple[int, int]) -> _Frame:
        """uncompressed_header, as far as refresh_frame_flags."""
        assert self._sequence is not None
        sequence = self._sequence
        kind, shown, resilient = KEY_FRAME, True, True
        if not sequence.reduced:
            if bits.u(1):
                slot = bits.u(3)
                return _Frame(True, False, 0, self._slots[slot])
            kind, shown = bits.u(2), bool(bits.u(1))
            if shown:
                bits.u(sequence.presentation_bits)
            else:
                bits.u(1)
            resilient = kind == SWITCH or (kind == KEY_FRAME and shown) or bool(bits.u(1))
        bits.u(1)
        tools = bits.u(1) if sequence.screen_tools == CHOOSE else sequence.screen_tools
        if tools and sequence.integer_mv == CHOOSE:
            bits.u(1)
        bits.u(sequence.frame_id_bits)
        if kind != SWITCH and not sequence.reduced:
            bits.u(1)
        order = bits.u(sequence.order_bits) if sequence.order_bits else None
        if kind not in (KEY_FRAME, INTRA_ONLY) and not resilient:
            bits.u(3)
        if sequence.model_bits and bits.u(1):
            temporal, spatial = extension
            for point in sequence.removal_points:
                if not point or (point >> temporal & 1 and point >> (spatial + 8) & 1):
                    bits.u(sequence.model_bits)
        refreshes = ALL_SLOTS if kind == SWITCH or (kind == KEY_FRAME and shown) else bits.u(8)
        return _Frame(shown, kind == KEY_FRAME, refreshes, order)

    def _keep(self, payload: Data) -> None:
        try:
            self._sequence = _sequence(Bits(bytes(payload[:256])))
        except OutOfBitsError:
            return


def _units(data: Data) -> Iterator[tuple[int, Data, tuple[int, int]]]:
    """Type, payload, and (temporal, spatial) layer of each open bitstream unit (5.3)."""
    place = 0
    while place < len(data):
        header = data[place]
        if header & 0x80:
            raise OutOfBitsError
        place += 1
        layers = (0, 0)
        if header & 4:
            if place >= len(data):
                raise OutOfBitsError
            layers = (data[place] >> 5, data[place] >> 3 & 3)
            place += 1
        size = len(data) - place
        if header & 2:
            size, place = _leb128(data, place)
        if place + size > len(data):
            raise OutOfBitsError
        yield header >> 3 & 15, data[place : place + size], layers
        place += size


def _leb128(data: Data, place: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        if place >= len(data):
            break
        value |= (data[place] & 0x7F) << 7 * i
        place += 1
        if not data[place - 1] & 0x80:
            return value, place
    raise OutOfBitsError


def _sequence(bits: Bits) -> Sequence:
    """sequence_header_obu, as far as order_hint_bits."""
    bits.u(4)
    reduced = bool(bits.u(1))
    model_bits = presentation_bits = delay_bits = 0
    points: list[int] = []
    if reduced:
        bits.u(5)
    else:
        even = False
        if bits.u(1):
            bits.u(64)
            if even := bool(bits.u(1)):
                bits.uvlc()
            if bits.u(1):
                delay_bits = bits.u(5) + 1
                bits.u(32)
                model_bits, presentation_bits = bits.u(5) + 1, bits.u(5) + 1
        delays = bits.u(1)
        for _ in range(bits.u(5) + 1):
            point = bits.u(12)
            if bits.u(5) > 7:
                bits.u(1)
            if model_bits and bits.u(1):
                bits.u(2 * delay_bits + 1)
                points.append(point)
            if delays and bits.u(1):
                bits.u(4)
        presentation_bits = 0 if even else presentation_bits
    width_bits, height_bits = bits.u(4) + 1, bits.u(4) + 1
    bits.u(width_bits + height_bits)
    frame_id_bits = 0
    if not reduced and bits.u(1):
        frame_id_bits = bits.u(4) + 2 + bits.u(3) + 1
    bits.u(3)
    if reduced:
        return Sequence(reduced=True)
    bits.u(4)
    ordered = bits.u(1)
    if ordered:
        bits.u(2)
    tools = CHOOSE if bits.u(1) else bits.u(1)
    integer_mv = CHOOSE
    if tools and not bits.u(1):
        integer_mv = bits.u(1)
    return Sequence(
        model_bits=model_bits,
        removal_points=tuple(points),
        presentation_bits=presentation_bits,
        frame_id_bits=frame_id_bits,
        screen_tools=tools,
        integer_mv=integer_mv,
        order_bits=bits.u(3) + 1 if ordered else 0,
    )
