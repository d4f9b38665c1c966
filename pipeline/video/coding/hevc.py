"""HEVC packets (ITU-T H.265): key frames, and pictures that no other refers to."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.video.coding.facts import BROKEN, DROPPABLE, KEY, NOTHING, PLAIN, Coded, Data
from pipeline.video.coding.nal import nal_units, parameter_arrays

LAST_SLICE, LAST_SUBLAYER_NONREFERENCE, SPS = 31, 14, 33
KEYS = range(16, 24)
NO_PICTURE = range(32, 41)


class HevcHeaders:
    """Reads the packets of one stream.

    A "sub-layer non-reference" picture is referred to by none of its own temporal sub-layer, and pictures of lower ones
    refer to no higher (3.140): in the highest sub-layer it may be left out.

    Args:
        extradata: hvcC, or parameter sets with start codes, or nothing.
    """

    def __init__(self, extradata: bytes | None) -> None:
        extradata = extradata or b""
        framed = len(extradata) > 22 and extradata[0] == 1
        self._length_bytes = (extradata[21] & 3) + 1 if framed else 0
        self._highest: int | None = None
        """TemporalId of the highest sub-layer that any parameter set allows."""
        for nal in _configured(extradata) if framed else nal_units(extradata, 0):
            self._keep(nal)

    def restart(self) -> None:
        """Nothing is kept but parameter sets."""

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """What the next packet is. The container's opinion of key frames counts for nothing."""
        well_formed = False
        for nal in nal_units(data, self._length_bytes):
            if len(nal) < 3:
                continue
            kind, layer = nal[0] >> 1 & 0x3F, (nal[0] & 1) << 5 | nal[1] >> 3
            if kind <= LAST_SLICE and not layer:
                if nal[0] & 0x80 or not nal[1] & 7 or not nal[2] & 0x80:
                    return BROKEN
                if kind in KEYS:
                    return KEY
                lowest = kind <= LAST_SUBLAYER_NONREFERENCE and kind % 2 == 0
                return DROPPABLE if lowest and (nal[1] & 7) - 1 == self._highest else PLAIN
            if kind == SPS:
                self._keep(nal)
            well_formed = well_formed or kind in NO_PICTURE
        return NOTHING if well_formed or not len(data) else BROKEN

    def _keep(self, nal: Data) -> None:
        if len(nal) > 2 and nal[0] >> 1 & 0x3F == SPS:
            self._highest = max(self._highest or 0, nal[2] >> 1 & 7)


def _configured(extradata: bytes) -> Iterator[bytes]:
    """Parameter sets of hvcC (ISO/IEC 14496-15, 8.3.3.1)."""
    place = 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[place + 1 : place + 3], "big")
        place += 3
        for _, nal in zip(range(count), parameter_arrays(extradata, place), strict=False):
            yield nal
            place += 2 + len(nal)
