"""Rows of one shard file, of either format, and of their columns only those asked for."""

from __future__ import annotations

import bisect
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from itertools import accumulate
from typing import BinaryIO, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.cache.cached_clip import Arrays, CachedClip, cached_clip
from pipeline.cache.clip_fields import FIELDS, clip_of_arrays, parquet_columns, pruned, webdataset_members
from pipeline.cache.cut import Cut, coarsened
from pipeline.cache.row_group import PrunedGroup
from pipeline.shards.columns import clip_of
from pipeline.shards.rows import TarReader
from pipeline.shards.scan import arrays_of_sample, clip_of_sample
from pipeline.store import Store
from pipeline.store.disk import DiskStore
from pipeline.values import TokenSet


class Wanted(NamedTuple):
    """What is read of each clip, and what is made of it."""

    fields: tuple[str, ...] = FIELDS
    arrays: Arrays = "torch"
    cut: Cut | None = None
    tubelet_frames: int = 1

    @property
    def read(self) -> tuple[str, ...]:
        """Arrays that have to be read: a cut needs the map and the tree as well."""
        return self.fields if self.cut is None else FIELDS

    def of_token_set(self, clip: TokenSet) -> CachedClip:
        """A whole clip, cut and without what was not asked for."""
        clip = clip if self.cut is None else coarsened(clip, self.cut)
        return pruned(cached_clip(clip, self.arrays, self.tubelet_frames), self.fields)


class ShardRows(Protocol):
    """A shard file that is open for the rows that are wanted of it."""

    held_bytes: int
    """Of row groups in memory."""

    def clip(self, row: int) -> CachedClip:
        """One clip.

        Raises:
            OSError, ValueError, KeyError, IndexError, RuntimeError: it cannot be read.
        """

    def close(self) -> None:
        """Let go of the file."""


def open_rows(store: Store, name: str, rows: Sequence[int], wanted: Wanted, ahead: Executor | None) -> ShardRows:
    """Open a shard file, of Parquet with the first row group that is wanted.

    Args:
        store: Where it is.
        name: Of the file.
        rows: Those that will be asked for, in this order.
        wanted: What of them.
        ahead: Reads what is asked for next; without it everything is read when it is asked for.
    """
    if name.endswith(".parquet") and isinstance(store, DiskStore):
        return _ParquetRows(pa.memory_map(str(store.root / name)), rows, wanted, ahead, is_local=True)
    with ExitStack() as on_error:
        stream = on_error.enter_context(store.open(name))
        if name.endswith(".parquet"):
            opened: ShardRows = _ParquetRows(stream, rows, wanted, ahead, is_local=False)
        else:
            opened = _TarRows(stream, wanted)
        on_error.pop_all()
    return opened


class _TarRows:
    """Samples of a tar file, of which only the members asked for are read."""

    def __init__(self, stream: BinaryIO, wanted: Wanted) -> None:
        self._reader, self._wanted = TarReader(stream), wanted
        self._members = webdataset_members(wanted.read)
        self.held_bytes = 0

    def clip(self, row: int) -> CachedClip:
        if self._wanted.cut is not None:
            return self._wanted.of_token_set(clip_of_sample(self._reader.members(row)))
        members = self._reader.members(row, self._members)
        scalars = json.loads(members["json"])
        arrays = arrays_of_sample(members, scalars)
        arrays = {name: array for name, array in arrays.items() if name in (*self._wanted.fields, "tokens_scale")}
        return clip_of_arrays(scalars, arrays, self._wanted.arrays, self._wanted.tubelet_frames)

    def close(self) -> None:
        self._reader.close()


class _ParquetRows:
    """Rows of a Parquet file: a group is decoded once, and let go after the last of its rows that is wanted."""

    def __init__(
        self,
        stream: BinaryIO | pa.NativeFile,
        rows: Sequence[int],
        wanted: Wanted,
        ahead: Executor | None,
        *,
        is_local: bool,
    ) -> None:
        self._stream, self._wanted, self._ahead = stream, wanted, ahead
        self.held_bytes = 0
        # Of an object store the columns of a group are fetched together; what is mapped is there already.
        self._file = pq.ParquetFile(stream, pre_buffer=not is_local)
        # Those that a file lacks are not read.
        self._columns = parquet_columns(wanted.fields)
        metadata = self._file.metadata
        self._ends = list(accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))
        self._left = Counter(self._group_of(row) for row in rows)
        self._groups: dict[int, _WholeGroup | PrunedGroup] = {}
        # In the order in which they are wanted first.
        self._due = [group for group in self._left if group < len(self._ends)]
        self._next: Future[pa.Table] | None = None
        self._first = self._table(self._due[0]) if self._due else None

    def _group_of(self, row: int) -> int:
        return bisect.bisect_right(self._ends, row)

    def clip(self, row: int) -> CachedClip:
        number = self._group_of(row)
        if number == len(self._ends):
            raise IndexError(f"row {row} of {self._ends[-1] if self._ends else 0}")
        group = self._groups.get(number) or self._begun(number)
        clip = group.clip(row - (self._ends[number - 1] if number else 0))
        self._left[number] -= 1
        if self._left[number] <= 0:
            self.held_bytes -= self._groups.pop(number).held_bytes
        return clip

    def _begun(self, number: int) -> _WholeGroup | PrunedGroup:
        table = self._decoded(number)
        group = (
            PrunedGroup(table, self._wanted.arrays, self._wanted.tubelet_frames)
            if self._wanted.cut is None
            else _WholeGroup(table, self._wanted)
        )
        self._groups[number] = group
        self.held_bytes += group.held_bytes
        return group

    def _decoded(self, number: int) -> pa.Table:
        """A group's table, and the next one begun."""
        table, self._first = self._first, None
        if self._next is not None:
            table, self._next = self._next.result(), None
        if not self._due or number != self._due.pop(0) or table is None:
            return self._table(number)
        if self._due and self._ahead is not None:
            self._next = self._ahead.submit(self._table, self._due[0])
        return table

    def _table(self, number: int) -> pa.Table:
        columns = self._columns if self._wanted.cut is None else None
        return self._file.read_row_group(number, columns=columns, use_threads=False)

    def close(self) -> None:
        if self._next is not None and not self._next.cancel():
            self._next.exception()
        self._groups.clear()
        self._file.close()
        self._stream.close()


class _WholeGroup:
    def __init__(self, table: pa.Table, wanted: Wanted) -> None:
        self._table, self._wanted = table, wanted
        self.held_bytes = int(table.nbytes)

    def clip(self, row: int) -> CachedClip:
        return self._wanted.of_token_set(clip_of(self._table.slice(row, 1).to_pylist()[0]))
