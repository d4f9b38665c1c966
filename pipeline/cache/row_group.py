"""A decoded row group as clips, whose arrays are views of Arrow's memory where they need not be converted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from pipeline.cache.cached_clip import Arrays, CachedClip
from pipeline.cache.clip_fields import BYTES, LISTS, clip_of_arrays
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


Kind: TypeAlias = tuple[str, int]
"""Dtype of a cell, and numbers in a row of it; 1 for a flat one."""


class PrunedGroup:
    """Some columns of a row group, as clips."""

    def __init__(self, table: pa.Table, arrays: Arrays, tubelet_frames: int) -> None:
        self.held_bytes = 0
        self._arrays, self._tubelet_frames = arrays, tubelet_frames
        lists = [name for name in LISTS if name in table.column_names]
        raw = [name for name in (*BYTES, "tokens_scale") if f"{name}_bytes" in table.column_names]
        plain = [name for name in table.column_names if name not in lists and not name.endswith("_bytes")]
        self._scalars: list[dict[str, Any]] = table.select(plain).to_pylist()
        self._cells = {name: self._raw_cells(name, _whole(table.column(f"{name}_bytes"))) for name in raw}
        self._cells |= {name: self._list_cells(name, _whole(table.column(name))) for name in lists}

    def clip(self, row: int) -> CachedClip:
        """The clip of one row."""
        scalars = self._scalars[row]
        arrays = {name: cells[row] for name, cells in self._cells.items()}
        if scalars.get("tokens_dtype") == "int4":
            packed, scale = np.asarray(arrays["tokens"]), np.asarray(arrays["tokens_scale"])
            arrays["tokens"], arrays["tokens_scale"] = unpacked_tokens(packed, scale, scalars["tokens_shape"])
        return clip_of_arrays(scalars, arrays, self._arrays, self._tubelet_frames)

    def _raw_cells(self, name: str, column: pa.Array) -> list[Any]:
        """Cells of raw bytes."""
        if column.null_count == len(column):
            return [None] * len(column)
        if name == "tokens":
            kinds = [token_cell(row["tokens_dtype"], row["tokens_shape"][1]) for row in self._scalars]
        elif name == "tokens_scale" and any(row["tokens_dtype"] == "int4" for row in self._scalars):
            kinds = [("<f2" if row["tokens_dtype"] == "int4" else "<f4", 1) for row in self._scalars]
        elif name in ARRAY_DTYPES:
            kinds = [(ARRAY_DTYPES[name], 3 if name == "centers" else 1)] * len(column)
        else:
            kinds = [(NUMPY_DTYPES[row["group_dtype"]], 1) for row in self._scalars]
        _, offsets, data = column.buffers()
        starts = np.frombuffer(offsets, dtype=np.int64, count=column.offset + len(column) + 1)[column.offset :].tolist()
        self.held_bytes += starts[-1] - starts[0]
        return _without_nulls(column, self._cut(data, starts, kinds))

    def _list_cells(self, name: str, column: pa.Array) -> list[Any]:
        """Cells of numbers."""
        values = column.flatten()
        lengths = [0 if count is None else count for count in pc.list_value_length(column).to_pylist()]
        dtype = LIST_DTYPES[name]
        starts = (np.cumsum([0, *lengths]) + values.offset) * np.dtype(dtype).itemsize
        return _without_nulls(column, self._cut(values.buffers()[1], starts.tolist(), [(dtype, 1)] * len(column)))

    def _cut(self, data: pa.Buffer | None, starts: list[int], kinds: list[Kind]) -> list[Any]:
        """Memory cut at `starts`, in bytes."""
        data = pa.py_buffer(b"") if data is None else data
        if self._arrays == "numpy":
            return [_numpy_cell(data, *span, *kind) for span, kind in zip(pairwise(starts), kinds, strict=True)]
        memory = _tensor_of(data)
        if len(set(kinds)) == 1:
            return _even_cells(memory, starts, *kinds[0])
        return [_tensor_cell(memory, *span, *kind) for span, kind in zip(pairwise(starts), kinds, strict=True)]


def token_cell(dtype: str, dim: int) -> Kind:
    """How the tokens of D = dim channels lie in their bytes."""
    return ("u1", -(-dim // 2)) if dtype == "int4" else (NUMPY_DTYPES[dtype], dim)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _without_nulls(column: pa.Array, cells: list[Any]) -> list[Any]:
    if not column.null_count:
        return cells
    return [cell if there else None for cell, there in zip(cells, column.is_valid().to_pylist(), strict=True)]


def _numpy_cell(data: pa.Buffer, first: int, last: int, dtype: str, width: int) -> Any:
    cell = np.frombuffer(data, dtype=dtype, count=(last - first) // np.dtype(dtype).itemsize, offset=first)
    return cell if width == 1 else cell.reshape(-1, width)


def _tensor_of(data: pa.Buffer) -> Tensor:
    if not len(data):
        return torch.empty(0, dtype=torch.uint8)
    # By way of DLPack, because torch warns of numpy's read-only views.
    plain = pa.Array.from_buffers(pa.uint8(), len(data), [None, data])
    memory: Tensor = torch.from_dlpack(plain)  # type: ignore[attr-defined]
    return memory


def _even_cells(memory: Tensor, starts: list[int], dtype: str, width: int) -> list[Tensor]:
    """Cells of one kind, cut at once: a view of its own for each takes longer than reading it."""
    whole = memory[starts[0] : starts[-1]].view(TORCH_DTYPES[dtype])
    itemsize = np.dtype(dtype).itemsize * width
    lengths = [(last - first) // itemsize for first, last in pairwise(starts)]
    return list(torch.split(whole if width == 1 else whole.view(-1, width), lengths))


def _tensor_cell(memory: Tensor, first: int, last: int, dtype: str, width: int) -> Tensor:
    # Copied, because torch wants its numbers where their size divides the address.
    cell = memory[first:last].clone().view(TORCH_DTYPES[dtype])
    return cell if width == 1 else cell.view(-1, width)
