"""Rows of many tables in little memory: compressed blocks, of which a few are open at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.shards.tables import BATCH_ROWS

BLOCK_ROWS = 1 << 14
OPEN_BLOCKS = 4


class Blocks:
    """Rows in the order in which they were added. They are best read in that order.

    Args:
        tables: The rows.
        schema: Of all tables.
    """

    def __init__(self, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
        self._schema = schema
        self._packed: list[pa.Buffer] = []
        self._starts = [0]
        self._open: OrderedDict[int, pa.Table] = OrderedDict()
        for waiting in _gathered(tables):
            self._packed.append(_packed(pa.concat_tables(waiting)))
            self._starts.append(self._starts[-1] + sum(map(len, waiting)))
        # What reading and packing took is given back: Arrow would keep it for later.
        pa.default_memory_pool().release_unused()

    def __len__(self) -> int:
        return self._starts[-1]

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows."""
        parts = [_unpacked(packed, [self._schema.get_field_index(name)]).column(0) for packed in self._packed]
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks], self._schema.field(name).type)

    def numbers(self, name: str) -> NDArray[Any]:
        """(rows,) one column of numbers."""
        array: NDArray[Any] = self.column(name).to_numpy()
        return array

    def batches(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows, some thousands at a time; all columns, or some."""
        wanted = None if names is None else [self._schema.get_field_index(name) for name in names]
        for packed in self._packed:
            table = _unpacked(packed, wanted)
            for first in range(0, len(table), BATCH_ROWS):
                yield table.slice(first, BATCH_ROWS)

    def take(self, rows: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Rows in any order, some thousands at a time; quick where rows that follow each other are of one block."""
        for first in range(0, len(rows), BATCH_ROWS):
            batch = rows[first : first + BATCH_ROWS]
            block_of = np.searchsorted(self._starts, batch, side="right") - 1
            for stretch in np.split(batch, np.flatnonzero(np.diff(block_of)) + 1):
                number = bisect_right(self._starts, stretch[0]) - 1
                yield self._block(number).take(pa.array(stretch - self._starts[number]))

    def _block(self, number: int) -> pa.Table:
        if number not in self._open:
            if len(self._open) == OPEN_BLOCKS:
                self._open.popitem(last=False)
            self._open[number] = _unpacked(self._packed[number])
        self._open.move_to_end(number)
        return self._open[number]


def _gathered(tables: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    """Tables together: a run that was stopped and resumed often has thousands of small ones."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= BLOCK_ROWS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _packed(table: pa.Table) -> pa.Buffer:
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table.combine_chunks())
    return stream.getvalue()


def _unpacked(packed: pa.Buffer, columns: list[int] | None = None) -> pa.Table:
    options = pa.ipc.IpcReadOptions(included_fields=columns or [])
    with pa.ipc.open_stream(packed, options=options) as reader:
        return reader.read_all()
