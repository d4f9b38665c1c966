"""Wanted frames to a decode plan: where to start, and what each start is to put out. No pixels, no files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Run:
    """The wanted frames that one key frame governs: those at or after it and before the next."""

    key_pts: int
    targets: tuple[int, ...]
    """Ticks, increasing."""


def governing_key(pts: int, key_pts: NDArray[np.int64]) -> int:
    """Position in `key_pts` of the last key frame at or before `pts`; 0 where there is none.

    A leading picture of an open group (shown before its key frame, coded after it) so belongs to the group before,
    whose pictures it may refer to.
    """
    return max(int(np.searchsorted(key_pts, pts, side="right")) - 1, 0)


def plan_runs(targets: Sequence[int], key_pts: NDArray[np.int64]) -> tuple[Run, ...]:
    """Group wanted ticks (increasing) by the key frame that governs them."""
    runs: list[Run] = []
    members: list[int] = []
    key = -1
    for pts in targets:
        governor = governing_key(pts, key_pts)
        if members and governor != key:
            runs.append(Run(int(key_pts[key]), tuple(members)))
            members = []
        members.append(pts)
        key = governor
    if members:
        runs.append(Run(int(key_pts[key]), tuple(members)))
    return tuple(runs)


def starting_points(pts: int, key_pts: NDArray[np.int64]) -> Iterator[int | None]:
    """Where decoding `pts` may start: its key frame, 1, 2, 4 ... key frames before it, the file's start (None)."""
    key = governing_key(pts, key_pts)
    back = 0
    while len(key_pts) and key - back > 0:
        yield int(key_pts[key - back])
        back = back * 2 or 1
    yield None
