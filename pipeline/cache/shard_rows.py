"""Many rows of many shards, each row group decoded once, and of its columns only those asked for."""

from __future__ import annotations

import bisect
import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pipeline.cache.cached_clip import Arrays, CachedClip, cached_clip
from pipeline.cache.clip_fields import (
    BYTES,
    FIELDS,
    LISTS,
    clip_of_arrays,
    parquet_columns,
    pruned,
    webdataset_members,
)
from pipeline.cache.cut import Cut, coarsened
from pipeline.errors import RunFolderError
from pipeline.shards.columns import NUMPY_DTYPES, clip_of
from pipeline.shards.rows import TarReader
from pipeline.shards.scan import arrays_of_sample, clip_of_sample
from pipeline.store import Store
from pipeline.store.disk import DiskStore
from pipeline.values import TokenSet

OPEN_SHARDS = 64
HELD_BYTES = 512 << 20
"""Decoded row groups beyond which the shard that was used longest ago is let go, and read again when it is due."""
TORCH_DTYPES = {"<f2": torch.float16, "<f4": torch.float32, "<i4": torch.int32, "i1": torch.int8, "<u2": torch.uint16}
TORCH_DTYPES |= {"<u4": torch.uint32}
ARRAY_DTYPES = {"sizes": "<i4", "centers": "<f4", "loss": "<f4", "weights": "<f4", "tokens_scale": "<f4"}


class Wanted(NamedTuple):
    """What is read of each clip, and what is made of it."""

    fields: tuple[str, ...] = FIELDS
    arrays: Arrays = "torch"
    cut: Cut | None = None
    frames_per_token_row: int = 1

    @property
    def read(self) -> tuple[str, ...]:
        """Arrays that have to be read: a cut needs the map and the tree as well."""
        return self.fields if self.cut is None else FIELDS

    def of_token_set(self, clip: TokenSet) -> CachedClip:
        """A whole clip, cut and without what was not asked for."""
        clip = clip if self.cut is None else coarsened(clip, self.cut)
        return pruned(cached_clip(clip, self.arrays, self.frames_per_token_row), self.fields)


class RowAddress(NamedTuple):
    """Where a clip lies."""

    file: str
    row: int
    clip_id: str
    """That is committed there."""


class _Rows(Protocol):
    @property
    def held_bytes(self) -> int: ...

    def clip(self, row: int) -> CachedClip: ...

    def close(self) -> None: ...


def read_rows(store: Store, addresses: Sequence[RowAddress], wanted: Wanted) -> Iterator[CachedClip]:
    """The clips at these addresses, in this order.

    A row group stays in memory from the first of its clips that is wanted to the last, as long as `HELD_BYTES` are not
    exceeded.

    Raises:
        RunFolderError: a shard cannot be read, or holds other clips.
    """
    left = Counter(address.file for address in addresses)
    rows_of: dict[str, list[int]] = {}
    for address in addresses:
        rows_of.setdefault(address.file, []).append(address.row)
    opened: OrderedDict[str, _Rows] = OrderedDict()
    current = ""
    try:
        for file, row, clip_id in addresses:
            try:
                if file not in opened:
                    opened[file] = _open(store, file, rows_of[file][-left[file] :], wanted)
                if file != current:
                    opened.move_to_end(file)
                    current = file
                    _let_go(opened)
                clip = opened[file].clip(row)
            # Torch raises RuntimeErrors where bytes do not fit a shape.
            except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
                raise RunFolderError(f"{store.address}: {file} cannot be read ({error}): run `vtm verify`") from error
            if clip.clip_id != clip_id:
                raise RunFolderError(f"{store.address}: {file} holds other clips than were committed: run `vtm verify`")
            left[file] -= 1
            if not left[file]:
                opened.pop(file).close()
            yield clip
    finally:
        for rows in opened.values():
            rows.close()


def _let_go(opened: OrderedDict[str, _Rows]) -> None:
    while len(opened) > 1 and (
        len(opened) > OPEN_SHARDS or sum(rows.held_bytes for rows in opened.values()) > HELD_BYTES
    ):
        opened.popitem(last=False)[1].close()


def _open(store: Store, name: str, rows: Sequence[int], wanted: Wanted) -> _Rows:
    if not name.endswith(".parquet"):
        return _TarRows(store.open(name), wanted)
    if isinstance(store, DiskStore):
        return _ParquetRows(pa.memory_map(str(store.root / name)), rows, wanted, is_local=True)
    return _ParquetRows(store.open(name), rows, wanted, is_local=False)


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
        return clip_of_arrays(scalars, arrays, self._wanted.arrays, self._wanted.frames_per_token_row)

    def close(self) -> None:
        self._reader.close()


class _ParquetRows:
    """Rows of a Parquet file: a group is decoded at its first row that is wanted, and let go after its last."""

    def __init__(
        self, stream: BinaryIO | pa.NativeFile, rows: Iterable[int], wanted: Wanted, *, is_local: bool
    ) -> None:
        self._stream, self._wanted = stream, wanted
        # Of an object store the columns of a group are fetched together; what is mapped is there already.
        self._file = pq.ParquetFile(stream, pre_buffer=not is_local)
        metadata = self._file.metadata
        self._ends = list(accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))
        self._left = Counter(self._group_of(row) for row in rows)
        self._groups: dict[int, _WholeGroup | _PrunedGroup] = {}

    @property
    def held_bytes(self) -> int:
        return sum(group.held_bytes for group in self._groups.values())

    def _group_of(self, row: int) -> int:
        return bisect.bisect_right(self._ends, row)

    def clip(self, row: int) -> CachedClip:
        number = self._group_of(row)
        if number == len(self._ends):
            raise IndexError(f"row {row} of {self._ends[-1] if self._ends else 0}")
        if number not in self._groups:
            self._groups[number] = self._decoded(number)
        clip = self._groups[number].clip(row - (self._ends[number - 1] if number else 0))
        self._left[number] -= 1
        if self._left[number] <= 0:
            del self._groups[number]
        return clip

    def _decoded(self, number: int) -> _WholeGroup | _PrunedGroup:
        if self._wanted.cut is not None:
            return _WholeGroup(self._file.read_row_group(number), self._wanted)
        columns = [name for name in parquet_columns(self._wanted.fields) if name in self._file.schema_arrow.names]
        table = self._file.read_row_group(number, columns=columns, use_threads=False)
        return _PrunedGroup(table, self._wanted)

    def close(self) -> None:
        self._groups.clear()
        self._file.close()
        self._stream.close()


class _WholeGroup:
    def __init__(self, table: pa.Table, wanted: Wanted) -> None:
        self._table, self._wanted = table, wanted
        self.held_bytes = int(table.nbytes)

    def clip(self, row: int) -> CachedClip:
        return self._wanted.of_token_set(clip_of(self._table.slice(row, 1).to_pylist()[0]))


class _PrunedGroup:
    """A row group whose arrays are views of Arrow's memory: nothing is copied but what must be converted."""

    def __init__(self, table: pa.Table, wanted: Wanted) -> None:
        self._wanted = wanted
        self.held_bytes = int(table.nbytes)
        names = [name for name in table.column_names if not name.endswith("_bytes")]
        self._scalars = table.select(names).to_pylist()
        stored = [name for name in (*BYTES, "tokens_scale") if f"{name}_bytes" in table.column_names]
        self._bytes = {name: _Cells(table.column(f"{name}_bytes"), wanted.arrays) for name in stored}

    def clip(self, row: int) -> CachedClip:
        scalars = self._scalars[row]
        arrays: dict[str, Any] = {
            name: cells.array(row, _dtype_of(name, scalars)) for name, cells in self._bytes.items()
        }
        if "tokens" in arrays:
            arrays["tokens"] = arrays["tokens"].reshape(scalars["tokens_shape"])
        if "centers" in arrays:
            arrays["centers"] = arrays["centers"].reshape(-1, 3)
        for name in LISTS:
            if scalars.get(name) is not None:
                dtype = np.int64 if name == "frame_time_ns" else np.float32
                arrays[name] = np.array(scalars[name], dtype=dtype)
        return clip_of_arrays(scalars, arrays, self._wanted.arrays, self._wanted.frames_per_token_row)


def _dtype_of(name: str, scalars: dict[str, Any]) -> str:
    if name in ARRAY_DTYPES:
        return ARRAY_DTYPES[name]
    return NUMPY_DTYPES[scalars["tokens_dtype" if name == "tokens" else "group_dtype"]]


class _Cells:
    """A column of raw bytes, whose cells are arrays."""

    def __init__(self, column: pa.ChunkedArray, kind: Arrays) -> None:
        chunk = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
        self._is_null: NDArray[np.bool_] = chunk.is_null().to_numpy(zero_copy_only=False)
        _, offsets, data = chunk.buffers()
        starts = np.frombuffer(offsets, dtype=np.int64, count=chunk.offset + len(chunk) + 1)[chunk.offset :]
        self._starts: list[int] = starts.tolist()
        self._data = data if data is not None else pa.py_buffer(b"")
        self._tensor: torch.Tensor | None = None
        if kind == "torch" and len(self._data):
            # By way of DLPack, because torch warns of numpy's read-only views.
            plain = pa.Array.from_buffers(pa.uint8(), len(self._data), [None, self._data])
            self._tensor = torch.from_dlpack(plain)  # type: ignore[attr-defined]

    def array(self, row: int, dtype: str) -> Any:
        """A cell as a flat array; None where there is none."""
        if self._is_null[row]:
            return None
        first, last = self._starts[row], self._starts[row + 1]
        itemsize = np.dtype(dtype).itemsize
        if self._tensor is None:
            return np.frombuffer(self._data, dtype=dtype, count=(last - first) // itemsize, offset=first)
        cell = self._tensor[first:last]
        # Cells of different dtypes may follow each other, and torch wants its numbers where their size divides.
        return (cell if first % itemsize == 0 else cell.clone()).view(TORCH_DTYPES[dtype])
