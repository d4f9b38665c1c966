"""A decoded row group as clips, whose arrays are views of Arrow's memory where they need not be converted."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise, repeat
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cache.cached_clip import Arrays, CachedClip
from pipeline.cache.clip_fields import BYTES, LISTS, MAPS, SCALARS, as_given
from pipeline.shards.columns import NUMPY_DTYPES
from pipeline.shards.four_bits import unpacked_tokens

ARRAY_DTYPES = {"sizes": "<i4", "centers": "<f4", "loss": "<f4", "weights": "<f4", "tokens_scale": "<f4"}
LIST_DTYPES = {"frame_time_ns": "<i8", "pooled": "<f4", "embedding": "<f4"}
TORCH_DTYPES = {
    "<f2": torch.float16,
    "<f4": torch.float32,
    "<i4": torch.int32,
    "<i8": torch.int64,
    "i1": torch.int8,
    "u1": torch.uint8,
    "<u2": torch.uint16,
    "<u4": torch.uint32,
}
NAMES = tuple(field.name for field in fields(CachedClip))
AS_STORED = frozenset({"float16", "float32"})
"""Dtypes of tokens whose bytes are the numbers that a clip has."""

Kind: TypeAlias = tuple[str, int]
"""Dtype of a cell, and numbers in a row of it; 1 for a flat one."""


class PrunedGroup:
    """Some columns of a row group, as clips.

    Columns are taken apart once for the group, because their cells and not their bytes are what takes time. What has
    to be converted waits until its clip is asked for: it may be several times what was read.
    """

    def __init__(self, table: pa.Table, arrays: Arrays, tubelet_frames: int) -> None:
        self.held_bytes = 0
        self._arrays = arrays
        columns = dict(zip(table.column_names, _whole(table).columns, strict=True))
        raw = {name: columns.pop(f"{name}_bytes") for name in (*BYTES, "tokens_scale") if f"{name}_bytes" in columns}
        lists = {name: columns.pop(name) for name in LISTS if name in columns}
        self._scalars: dict[str, list[Any]] = {name: column.to_pylist() for name, column in columns.items()}
        cells = {name: self._raw_cells(name, column) for name, column in raw.items()}
        cells |= {name: self._list_cells(name, column) for name, column in lists.items()}
        self._scales = cells.pop("tokens_scale", None)
        dtypes = self._scalars.get("tokens_dtype", ())
        self._converted = [name for name in MAPS if name in cells]
        self._converted += ["tokens"] if "tokens" in cells and not AS_STORED.issuperset(dtypes) else []
        told = {name: self._scalars[name] for name in SCALARS}
        told["grid_thw"] = [tuple(grid) for grid in self._scalars["grid_thw"]]
        told["tubelet_frames"] = [tubelet_frames] * table.num_rows
        absent = [None] * table.num_rows
        self._rows = list(zip(*((told | cells).get(name, absent) for name in NAMES), strict=True))

    def clip(self, row: int) -> CachedClip:
        """The clip of one row."""
        values = dict(zip(NAMES, self._rows[row], strict=True))
        for name in self._converted:
            if values[name] is not None:
                values[name] = self._given(name, values[name], row)
        return CachedClip(**values)

    def _given(self, name: str, cell: Any, row: int) -> Any:
        """A cell whose numbers are not those of the clip."""
        if name != "tokens":
            return as_given(name, cell, None, None, self._arrays)
        scale, dtype = self._scales[row] if self._scales is not None else None, self._scalars["tokens_dtype"][row]
        if dtype == "int4":
            cell, scale = unpacked_tokens(np.asarray(cell), np.asarray(scale), self._scalars["tokens_shape"][row])
        return as_given(name, cell, dtype, scale, self._arrays)

    def _raw_cells(self, name: str, column: pa.Array) -> list[Any]:
        """Cells of raw bytes."""
        if column.null_count == len(column):
            return [None] * len(column)
        _, offsets, data = column.buffers()
        starts_B = np.frombuffer(offsets, dtype=np.int64, count=column.offset + len(column) + 1)[column.offset :]
        self.held_bytes += int(starts_B[-1] - starts_B[0])
        return _without_nulls(column, self._cut(data, starts_B, self._kinds(name, len(column))))

    def _kinds(self, name: str, count: int) -> Kind | list[Kind]:
        """Of the cells of a column of bytes: one where it is that of all of them."""
        if name == "tokens":
            shapes, dtypes = self._scalars["tokens_shape"], self._scalars["tokens_dtype"]
            kinds = [token_cell(dtype, shape[1]) for dtype, shape in zip(dtypes, shapes, strict=True)]
        elif name == "tokens_scale" and "int4" in self._scalars["tokens_dtype"]:
            kinds = [("<f2" if dtype == "int4" else "<f4", 1) for dtype in self._scalars["tokens_dtype"]]
        elif name in ARRAY_DTYPES:
            return ARRAY_DTYPES[name], 3 if name == "centers" else 1
        else:
            kinds = [(NUMPY_DTYPES[dtype], 1) for dtype in self._scalars["group_dtype"]]
        return kinds[0] if kinds.count(kinds[0]) == count else kinds

    def _list_cells(self, name: str, column: pa.Array) -> list[Any]:
        """Cells of numbers."""
        if pa.types.is_fixed_size_list(column.type):
            starts_B = (np.arange(len(column) + 1) + column.offset) * column.type.list_size
        else:
            starts_B = column.offsets.to_numpy().astype(np.int64)
        dtype = LIST_DTYPES[name]
        starts_B = (starts_B + column.values.offset) * np.dtype(dtype).itemsize
        return _without_nulls(column, self._cut(column.values.buffers()[1], starts_B, (dtype, 1)))

    def _cut(self, data: pa.Buffer | None, starts_B: NDArray[np.int64], kinds: Kind | list[Kind]) -> list[Any]:
        """Memory cut at `starts`, in bytes."""
        data = pa.py_buffer(b"") if data is None else data
        each = repeat(kinds) if isinstance(kinds, tuple) else kinds
        cell = _numpy_cell if self._arrays == "numpy" else _tensor_cell
        return [cell(data, *span, *kind) for span, kind in zip(pairwise(starts_B.tolist()), each, strict=False)]


def token_cell(dtype: str, dim: int) -> Kind:
    """How the tokens of D = dim channels lie in their bytes."""
    return ("u1", -(-dim // 2)) if dtype == "int4" else (NUMPY_DTYPES[dtype], dim)


def _whole(table: pa.Table) -> pa.RecordBatch:
    """A table in one piece, without a copy where it is one."""
    pieces = table.to_batches()
    return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)


def _without_nulls(column: pa.Array, cells: list[Any]) -> list[Any]:
    if not column.null_count:
        return cells
    return [cell if there else None for cell, there in zip(cells, column.is_valid().to_pylist(), strict=True)]


def _numpy_cell(data: pa.Buffer, first: int, last: int, dtype: str, width: int) -> Any:
    cell = np.frombuffer(data, dtype=dtype, count=(last - first) // np.dtype(dtype).itemsize, offset=first)
    return cell if width == 1 else cell.reshape(-1, width)


def _tensor_cell(data: pa.Buffer, first: int, last: int, dtype: str, width: int) -> Tensor:
    kind = TORCH_DTYPES[dtype]
    if (last - first) % kind.itemsize:
        raise ValueError(f"a cell of {last - first} bytes is no whole number of {kind}")
    if first == last:
        cell = torch.empty(0, dtype=kind)
    elif first % kind.itemsize or not data.is_mutable:
        # Copied, because torch wants its numbers where their size divides the address, and memory to write to.
        cell = torch.frombuffer(bytearray(data[first:last]), dtype=kind)
    else:
        cell = torch.frombuffer(data, dtype=kind, count=(last - first) // kind.itemsize, offset=first)
    return cell if width == 1 else cell.view(-1, width)
