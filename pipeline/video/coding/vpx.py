"""VP8 and VP9 packets: which are shown, where decoding may start, what may be left out."""

from __future__ import annotations

from pipeline.video.coding.bits import Bits, OutOfBitsError
from pipeline.video.coding.facts import BROKEN, KEY, NOTHING, PLAIN, Coded, Data

FRAME_MARKER = 2


class Vp8Headers:
    """Reads the packets of one stream (RFC 6386, 9.1)."""

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """What the next packet is."""
        if not len(data):
            return NOTHING
        return Coded(picture=bool(data[0] >> 4 & 1), key=not data[0] & 1)

    def restart(self) -> None:
        """Nothing is kept."""


class Vp9Headers:
    """Reads the packets of one stream (VP9 bitstream specification, 6.2 and annex B).

    A frame leaves nothing behind where it refreshes no reference and is error resilient, as those of real-time temporal
    layers are: otherwise it hands on probabilities and motion vectors.
    """

    def __init__(self) -> None:
        self._all_resilient = True

    def restart(self) -> None:
        """Nothing of the place is kept."""

    def read(self, data: Data, flagged_key: bool) -> Coded:
        """What the next packet is: a superframe shows one of its frames."""
        if not len(data):
            return NOTHING
        frames = superframe(data)
        if frames is None:
            return BROKEN
        shown = key = False
        droppable = True
        for number, frame in enumerate(frames):
            try:
                is_shown, is_key, leaves_nothing = self._frame(Bits(bytes(frame[:12])))
            except OutOfBitsError:
                return BROKEN
            shown = shown or is_shown
            key = key or (is_key and not number)
            droppable = droppable and leaves_nothing
        if key and shown:
            return KEY
        droppable = droppable and self._all_resilient
        return PLAIN if shown and not droppable else Coded(picture=shown, key=key, droppable=droppable)

    def _frame(self, bits: Bits) -> tuple[bool, bool, bool]:
        """Whether a frame is shown, is a key frame, and leaves nothing behind."""
        if bits.u(2) != FRAME_MARKER:
            raise OutOfBitsError
        profile = bits.u(1) | bits.u(1) << 1
        if profile == 3:
            bits.u(1)
        if bits.u(1):
            return True, False, True
        is_key = not bits.u(1)
        shown, resilient = bool(bits.u(1)), bool(bits.u(1))
        if is_key:
            if bits.u(24) != 0x498342:
                raise OutOfBitsError
            return shown, True, False
        self._all_resilient = self._all_resilient and resilient
        intra_only = bool(not shown and bits.u(1))
        if not resilient or intra_only:
            return shown, False, False
        return shown, False, bits.u(8) == 0


def superframe(data: Data) -> list[Data] | None:
    """The frames of a packet; None where the index at its end contradicts itself (annex B)."""
    marker = data[-1]
    if marker & 0xE0 != 0xC0:
        return [data]
    count, size_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index_bytes = 2 + count * size_bytes
    if len(data) < index_bytes or data[-index_bytes] != marker:
        return [data]
    frames: list[Data] = []
    place = 0
    for i in range(count):
        where = len(data) - index_bytes + 1 + i * size_bytes
        size = int.from_bytes(data[where : where + size_bytes], "little")
        if size:
            frames.append(data[place : place + size])
        place += size
    return frames if frames and place <= len(data) - index_bytes else None
