"""H.264 packets (ITU-T H.264): key frames, recovery points, droppable pictures, field pairs, lost references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.video.coding.bits import Bits, OutOfBitsError
from pipeline.video.coding.facts import BROKEN, DROPPABLE, NOTHING, PLAIN, Coded, Data
from pipeline.video.coding.nal import header_bytes, nal_units, sei_payloads

IDR, SEI, SPS, PPS = 5, 6, 7, 8
SLICES = frozenset({1, 2, 5})
RECOVERY_POINT = 6
SLICE_HEADER_BYTES = 24
SETS_MOST_BYTES = 512
CHROMA_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
ANY_ORDER_PROFILES = frozenset({66, 88})
"""Baseline and extended may send slices in any order, so the first need not begin the picture."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """What slice headers need of a sequence parameter set."""

    profile: int
    separate_planes: bool
    frame_num_bits: int
    gaps_allowed: bool
    frames_only: bool


class H264Headers:
    """Reads the packets of one stream.

    Args:
        extradata: avcC, or parameter sets with start codes, or nothing.
    """

    def __init__(self, extradata: bytes | None) -> None:
        extradata = extradata or b""
        self._length_bytes = (extradata[4] & 3) + 1 if len(extradata) > 5 and extradata[0] == 1 else 0
        self._sequences: dict[int, Sequence] = {}
        self._sequence_of: dict[int, int] = {}
        for nal in _parameter_sets(extradata):
            self._keep(nal)
        self.restart()

    @property
    def may_have_fields(self) -> bool:
        """Whether two packets may be one picture."""
        return any(not sequence.frames_only for sequence in self._sequences.values())

    def restart(self) -> None:
        """Forget what came before."""
        self._reference: int | None = None
        """frame_num of the last reference picture."""
        self._open_field: tuple[int, int] | None = None
        """frame_num and parity of a first field that waits for its second."""

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """What the next packet is. The container's opinion of key frames counts for nothing."""
        recovery: tuple[int, bool] | None = None
        well_formed = False
        for nal in nal_units(data, self._length_bytes):
            kind = nal[0] & 0x1F
            if kind in SLICES:
                return self._slice(nal, kind == IDR, recovery)
            if kind == SEI:
                recovery = _recovery(nal) or recovery
            elif kind in (SPS, PPS):
                self._keep(nal)
            well_formed = well_formed or kind in (SEI, SPS, PPS, 9)
        return NOTHING if well_formed or not len(data) else BROKEN

    def _slice(self, nal: Data, idr: bool, recovery: tuple[int, bool] | None) -> Coded:
        bits = Bits(header_bytes(nal, 1, SLICE_HEADER_BYTES))
        try:
            first_mb, slice_type, pps = bits.ue(), bits.ue(), bits.ue()
            known = self._sequences.get(self._sequence_of.get(pps, -1))
            if slice_type > 9 or pps > 255 or nal[0] & 0x80 or known is None:
                return BROKEN
            if known.separate_planes:
                bits.u(2)
            frame_num = bits.u(known.frame_num_bits)
            field = None if known.frames_only or not bits.u(1) else bits.u(1)
        except OutOfBitsError:
            return BROKEN
        if first_mb and known.profile not in ANY_ORDER_PROFILES:
            return BROKEN
        referred = bool(nal[0] & 0x60)
        second = field is not None and self._open_field == (frame_num, 1 - field)
        self._open_field = (frame_num, field) if field is not None and not second else None
        gap = False
        if not idr and not second and self._reference is not None and not known.gaps_allowed:
            gap = (frame_num - self._reference) % (1 << known.frame_num_bits) > 1
        if idr or referred:
            self._reference = frame_num
        wait, exact = recovery or (-1, False)
        key = not second and (idr or wait == 0 or (wait > 0 and exact))
        if not (key or second or gap):
            # Nearly all packets are: one of two values that are there.
            return PLAIN if referred else DROPPABLE
        return Coded(picture=not second, key=key, droppable=not referred, gap=gap, wait=0 if idr else max(wait, 0))

    def _keep(self, nal: Data) -> None:
        """Take a parameter set; one that is damaged is as good as none."""
        kind = nal[0] & 0x1F if len(nal) > 3 else 0
        bits = Bits(header_bytes(nal, 1, SETS_MOST_BYTES))
        try:
            if kind == PPS:
                self._sequence_of[bits.ue()] = bits.ue()
            elif kind == SPS:
                number, sequence = _sequence(bits)
                self._sequences[number] = sequence
        except OutOfBitsError:
            return


def _parameter_sets(extradata: bytes) -> Iterator[Data]:
    if not extradata or extradata[0] != 1:
        yield from nal_units(extradata, 0)
        return
    place = 5
    for mask in (0x1F, 0xFF):
        count = extradata[place] & mask if place < len(extradata) else 0
        place += 1
        for _ in range(count):
            size = int.from_bytes(extradata[place : place + 2], "big")
            if size:
                yield extradata[place + 2 : place + 2 + size]
            place += 2 + size


def _recovery(nal: Data) -> tuple[int, bool] | None:
    """recovery_frame_cnt and exact_match_flag (D.1.8) of a recovery point."""
    for kind, payload in sei_payloads(nal, 1):
        if kind == RECOVERY_POINT:
            bits = Bits(payload)
            try:
                return bits.ue(), bool(bits.u(1))
            except OutOfBitsError:
                return None
    return None


def _sequence(bits: Bits) -> tuple[int, Sequence]:
    """The number of a sequence parameter set (7.3.2.1.1), and what is needed of it."""
    profile = bits.u(8)
    bits.u(16)
    number = bits.ue()
    separate = False
    if profile in CHROMA_PROFILES:
        chroma = bits.ue()
        separate = chroma == 3 and bool(bits.u(1))
        bits.ue()
        bits.ue()
        bits.u(1)
        if bits.u(1):
            for i in range(8 if chroma != 3 else 12):
                if bits.u(1):
                    _skip_scaling_list(bits, 16 if i < 6 else 64)
    frame_num_bits = bits.ue() + 4
    order_type = bits.ue()
    if order_type == 0:
        bits.ue()
    elif order_type == 1:
        bits.u(1)
        bits.se()
        bits.se()
        for _ in range(bits.ue() % 256):
            bits.se()
    bits.ue()
    gaps_allowed = bool(bits.u(1))
    bits.ue()
    bits.ue()
    return number, Sequence(profile, separate, min(frame_num_bits, 16), gaps_allowed, bool(bits.u(1)))


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last
