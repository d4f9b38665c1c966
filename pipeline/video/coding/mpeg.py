"""MPEG-1, -2 and -4 part 2, H.263 and Microsoft's variants: picture types, of which no other picture refers to B."""

from __future__ import annotations

import re
from contextlib import suppress

from pipeline.video.coding.bits import Bits, OutOfBitsError
from pipeline.video.coding.facts import BROKEN, DROPPABLE, KEY, NOTHING, PLAIN, Coded, Data

PICTURE_START = b"\x00\x00\x01\x00"
VOP_START = b"\x00\x00\x01\xb6"
B_PICTURE, B_VOP = 3, 2
VOL_START = re.compile(rb"\x00\x00\x01[\x20-\x2f]")
VOP_HEADER_BYTES = 16
EXTENDED_ASPECT = 15
UNCODED = Coded(picture=None)
"""A picture that is "not coded": sent for a repeated one, or in place of one that the packet before holds."""
H263_PICTURE_START = 0x20
EXTENDED_FORMAT = 7
"""A source format that says: a PLUSPTYPE follows (5.1.4)."""
FULL_EXTENSION = 1
"""Of a PLUSPTYPE: its optional part is there."""


class MpegVideoHeaders:
    """MPEG-1 and MPEG-2 (ISO/IEC 13818-2, 6.2.3)."""

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """What the next packet is; two fields of a picture come in one."""
        if not len(data):
            return NOTHING
        if flagged_key:
            return KEY
        raw = bytes(data)
        place = raw.find(PICTURE_START)
        kinds = set()
        while 0 <= place < len(raw) - 5:
            kinds.add(raw[place + 5] >> 3 & 7)
            place = raw.find(PICTURE_START, place + 4)
        return DROPPABLE if kinds == {B_PICTURE} else PLAIN

    def restart(self) -> None:
        """Nothing is kept."""


class Mpeg4Headers:
    """MPEG-4 part 2 (ISO/IEC 14496-2, 6.2.3 and 6.2.5).

    Args:
        extradata: the headers of the stream, or nothing.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._time_bits: int | None = None
        """Of vop_time_increment; None where no layer header was read."""
        self._keep(extradata or b"")

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """What the next packet is; one that packs two pictures is never left out."""
        raw = bytes(data)
        if not raw:
            return NOTHING
        where = raw.find(VOP_START)
        self._keep(raw[: max(where, 0)])
        kind = raw[where + 4] >> 6 if 0 <= where < len(raw) - 4 else None
        if kind == 0:
            return KEY
        if kind is None:
            return UNCODED if any(raw) else BROKEN
        if not self._is_coded(raw[where + 4 : where + 4 + VOP_HEADER_BYTES]):
            return UNCODED
        return DROPPABLE if kind == B_VOP and raw.find(VOP_START, where + 4) < 0 else PLAIN

    def restart(self) -> None:
        """Nothing is kept but the layer's header."""

    def _is_coded(self, vop: bytes) -> bool:
        """vop_coded; False also where that cannot be told."""
        bits = Bits(vop)
        try:
            bits.u(2)
            while bits.u(1):
                continue
            bits.u(1 + (self._time_bits or 0) + 1)
            return self._time_bits is not None and bool(bits.u(1))
        except OutOfBitsError:
            return False

    def _keep(self, headers: bytes) -> None:
        """Take what is needed of a video object layer, where there is one."""
        if (found := VOL_START.search(headers)) is not None:
            with suppress(OutOfBitsError):
                self._time_bits = _time_bits(Bits(headers[found.end() : found.end() + 64]))


def _time_bits(bits: Bits) -> int:
    """Bits of vop_time_increment, by the header of a video object layer."""
    bits.u(9)
    if bits.u(1):
        bits.u(7)
    if bits.u(4) == EXTENDED_ASPECT:
        bits.u(16)
    if bits.u(1):
        bits.u(3)
        if bits.u(1):
            bits.u(79)
    bits.u(3)
    return max((bits.u(16) - 1).bit_length(), 1)


class TwoBitTypeHeaders:
    """Microsoft's MPEG-4 and Windows Media 7: coded pictures begin with two bits of type, 0 for intra."""

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """What the next packet is."""
        if not len(data):
            return NOTHING
        return KEY if data[0] >> 6 == 0 and flagged_key else PLAIN

    def restart(self) -> None:
        """Nothing is kept."""


class H263Headers:
    """H.263 (ITU-T H.263, 5.1)."""

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """What the next packet is. AVI calls every packet a key frame."""
        if not len(data):
            return NOTHING
        try:
            return KEY if self._is_intra(Bits(bytes(data[:12]))) else PLAIN
        except OutOfBitsError:
            return PLAIN

    def restart(self) -> None:
        """Nothing is kept."""

    def _is_intra(self, bits: Bits) -> bool:
        if bits.u(22) != H263_PICTURE_START:
            return False
        bits.u(13)
        if bits.u(3) != EXTENDED_FORMAT:
            return not bits.u(1)
        if bits.u(3) == FULL_EXTENSION:
            bits.u(18)
        return bits.u(3) == 0
