"""Key frames: which one governs a picture, and where else decoding may start. No pixels, no files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """Where decoding of a stream may start."""

    ticks: NDArray[np.int64]
    """Of the key frames, increasing."""
    whole_from: NDArray[np.int64]
    """From which tick on what is decoded from each key is whole: its own, unless the stream refreshes bit by bit."""

    def governing(self, tick: int) -> int:
        """Position of the last key from which the picture at `tick` comes out whole; -1 for the file's start.

        A leading picture of an open group (shown before its key frame, coded after it) so belongs to the group before,
        whose pictures it may refer to.
        """
        return int(np.searchsorted(self.whole_from, tick, side="right")) - 1

    def position(self, key_tick: int) -> int:
        """Position of the last key at or before `key_tick`; -1 where there is none."""
        return int(np.searchsorted(self.ticks, key_tick, side="right")) - 1

    def starts(self, tick: int) -> Iterator[int]:
        """Where decoding `tick` may start: its key, 1, 2, 4 ... keys before it, and the file's start (-1)."""
        first = self.governing(tick)
        back = 0
        while first - back >= 0:
            yield first - back
            back = back * 2 or 1
        yield -1


def keys_of(ticks: NDArray[np.int64], waits: tuple[tuple[int, int], ...] = ()) -> Keys:
    """Keys with the few whose pictures are whole only later: pairs of a key's tick and that from which they are."""
    whole_from = ticks.copy()
    for tick, whole in waits:
        place = int(np.searchsorted(ticks, tick))
        if place < len(ticks) and ticks[place] == tick:
            whole_from[place] = whole
    return Keys(ticks, np.maximum.accumulate(whole_from) if len(whole_from) else whole_from)
