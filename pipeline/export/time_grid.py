"""Merged tokens on a uniform grid in time: one vector a step, the mean of the patches of the frames in it.

Letters: T steps of a clip's own grid, M tokens, D channels, L rows of the uniform grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.cached_clip import CachedClip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeGrid:
    """A video on a uniform grid: row i is [i, i + 1) steps of video time."""

    rows: NDArray[np.float32]
    """(L, D)"""
    step_s: float
    filled: int
    """Rows in which no frame lies, or whose clip is lost: they hold the frame on display, the last one before."""


def frame_means(clip: CachedClip) -> NDArray[np.float32]:
    """(T, D) for each step of a clip's grid the mean over its patches of the tokens that represent them.

    Args:
        clip: with tokens and the map, as numpy arrays.
    """
    steps, rows, columns = clip.grid_thw
    step_N = np.repeat(np.arange(steps), rows * columns)
    counts_TM = np.bincount(step_N * len(clip.tokens) + clip.group, minlength=steps * len(clip.tokens))
    weights_TM = counts_TM.reshape(steps, len(clip.tokens)).astype(np.float32) / (rows * columns)
    means: NDArray[np.float32] = weights_TM @ clip.tokens.astype(np.float32)
    return means


def time_grid(clips: Iterable[CachedClip], step_s: float) -> TimeGrid:
    """A video's clips, in order of time, on a uniform grid that begins with its first frame.

    In memory are one clip, and the rows.

    Args:
        clips: of one video, in order, with tokens, map and times of frames, as numpy arrays.
        step_s: seconds from row to row.
    """
    sums: dict[int, NDArray[np.float64]] = {}
    counts: dict[int, int] = {}
    last: dict[int, NDArray[np.float32]] = {}
    for time_ns, mean_D in _steps(clips):
        row = int(time_ns / 1e9 / step_s + 1e-9)
        sums[row] = sums[row] + mean_D if row in sums else mean_D.astype(np.float64)
        counts[row] = counts.get(row, 0) + 1
        last[row] = mean_D
    grid, shown = [], next(iter(last.values()))
    for row in range(max(sums) + 1):
        grid.append((sums[row] / counts[row]).astype(np.float32) if row in sums else shown)
        shown = last.get(row, shown)
    return TimeGrid(rows=np.stack(grid), step_s=step_s, filled=len(grid) - len(sums))


def _steps(clips: Iterable[CachedClip]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for clip in clips:
        yield from zip(clip.row_time_ns.tolist(), frame_means(clip), strict=True)


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of norm 1; a row of zeros stays."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = rows / np.maximum(norms, np.finfo(np.float32).tiny)
    return scaled
