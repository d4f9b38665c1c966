"""The rows of a plan as columns: a million take a third of a gigabyte, where objects of Python take two."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.plan.table import VIDEOS, videos_of
from pipeline.values import PlannedVideo

BLOCK_ROWS = 1 << 16
BATCH_ROWS = 5000
REPEATED = ("container", "codec", "pixel_format", "picture_policy")
"""Columns of a few texts: kept as numbers of them."""


class Rows:
    """Rows in the order in which they were added.

    Args:
        tables: With all columns of the plan but `units`.
    """

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._blocks = list(_blocks(tables))
        self._starts = [0]
        for block in self._blocks:
            self._starts.append(self._starts[-1] + len(block))

    def __len__(self) -> int:
        return self._starts[-1]

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows."""
        if not self._blocks:
            return pa.chunked_array([], VIDEOS.field(name).type)
        return pa.chunked_array([chunk for block in self._blocks for chunk in block.column(name).chunks])

    def numbers(self, name: str) -> NDArray[Any]:
        """(rows,) one column of numbers."""
        array: NDArray[Any] = self.column(name).to_numpy()
        return array

    def values(self, row: int, *names: str) -> tuple[Any, ...]:
        """Some columns of one row."""
        block, at = self._place(row)
        return tuple(block.column(name)[at].as_py() for name in names)

    def video(self, row: int) -> PlannedVideo:
        """The video of one row."""
        block, at = self._place(row)
        return next(videos_of(block.slice(at, 1)))

    def videos(self, rows: NDArray[np.int64]) -> Iterator[PlannedVideo]:
        """The videos of rows in any order; quick where rows that follow each other are of one block."""
        for block, positions in self._stretches(rows):
            yield from videos_of(block.take(positions))

    def texts(self, rows: NDArray[np.int64], *names: str) -> Iterator[tuple[Any, ...]]:
        """Some columns of rows in any order."""
        for block, positions in self._stretches(rows):
            part = block.select(names).take(positions)
            yield from zip(*(column.to_pylist() for column in part.columns), strict=True)

    def _stretches(self, rows: NDArray[np.int64]) -> Iterator[tuple[pa.Table, pa.Array]]:
        """Rows as positions in blocks. (To take from a column of many blocks, Arrow would join them each time.)"""
        for first in range(0, len(rows), BATCH_ROWS):
            batch = rows[first : first + BATCH_ROWS]
            block_of = np.searchsorted(self._starts, batch, side="right")
            for stretch in np.split(batch, np.flatnonzero(np.diff(block_of)) + 1):
                block, at = self._place(int(stretch[0]))
                yield block, pa.array(stretch - stretch[0] + at)

    def pairs(self, first: str, second: str) -> Iterator[tuple[Any, Any]]:
        """Two columns of all rows."""
        for block in self._blocks:
            for at in range(0, len(block), BATCH_ROWS):
                part = block.select([first, second]).slice(at, BATCH_ROWS)
                yield from zip(part.column(first).to_pylist(), part.column(second).to_pylist(), strict=True)

    def _place(self, row: int) -> tuple[pa.Table, int]:
        block = bisect_right(self._starts, row) - 1
        return self._blocks[block], row - self._starts[block]


def _blocks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables in pieces of some size: a run that is stopped and gone on with may have stored thousands of small ones."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= BLOCK_ROWS:
            yield _block(waiting)
            waiting = []
    if waiting:
        yield _block(waiting)


def _block(tables: Sequence[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables)
    for name in REPEATED:
        position = table.column_names.index(name)
        table = table.set_column(position, name, table.column(name).combine_chunks().dictionary_encode())
    return table.combine_chunks()
