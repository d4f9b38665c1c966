"""Parquet files of users: rows that name videos, or that hold them as bytes.

A cell that holds a video is addressed as `parquet://<column>/<row>::<address of the file>`, rows counted from 0.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

PREFIX = "parquet://"
BYTES_NAMES = ("video", "bytes", "mp4", "video_bytes", "data", "content")
"""Names of columns that are taken for videos where several hold bytes."""


def read_rows(stream: BinaryIO) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file. Raw bytes are left out, but for those of a video: they become an address.

    Of a column of structs of `bytes` and `path`, as Hugging Face's `datasets` writes them, the bytes come first.

    Raises:
        ValueError: it is no Parquet file.
    """
    file = pq.ParquetFile(stream)
    fields = file.schema_arrow
    plain = [name for name in fields.names if not _holds_bytes(fields.field(name).type)]
    column = None if _text_columns(fields) else _bytes_column(fields)
    number = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.read_row_group(group, columns=plain).to_pylist()
        rows = rows or [{} for _ in range(file.metadata.row_group(group).num_rows)]
        if column is not None:
            for row, cell in zip(rows, _cells(file, group, column), strict=True):
                row["uri"] = f"{PREFIX}{quote(column, safe='')}/{number}" if cell is None else (cell or None)
                number += 1
        yield from rows


def _cells(file: pq.ParquetFile, group: int, column: str) -> Iterator[str | None]:
    """Of each row of a group None where it holds bytes, else the path that stands in their place, or nothing."""
    count = file.metadata.row_group(group).num_rows
    paths: list[str | None] = [""] * count
    if column.endswith(".bytes"):
        parent = column.removesuffix(".bytes")
        if "path" in [field.name for field in file.schema_arrow.field(parent).type]:
            found = file.read_row_group(group, columns=[f"{parent}.path"]).column(parent).to_pylist()
            paths = [(cell or {}).get("path") or "" for cell in found]
    if _nulls(file, group, column) == 0:
        yield from [None] * count
        return
    batches = file.iter_batches(1, row_groups=[group], columns=[column])
    for path, batch in zip(paths, batches, strict=True):
        yield None if _leaf(batch, column) is not None else path


def _nulls(file: pq.ParquetFile, group: int, column: str) -> int | None:
    """How many cells of a column are empty, where the file says it."""
    row_group = file.metadata.row_group(group)
    for number in range(row_group.num_columns):
        about = row_group.column(number)
        if about.path_in_schema == column:
            has_count = about.statistics is not None and about.statistics.has_null_count
            return int(about.statistics.null_count) if has_count else None
    return None


def _leaf(batch: pa.RecordBatch, column: str) -> bytes | None:
    """The bytes of the only row of a batch."""
    value = batch.column(0)[0].as_py()
    for name in column.split(".")[1:]:
        value = None if value is None else value[name]
    return cast("bytes | None", value)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _text_columns(fields: pa.Schema) -> bool:
    from pipeline.inputs.lists import URI_COLUMNS

    return any(name in URI_COLUMNS and not _holds_bytes(fields.field(name).type) for name in fields.names)


def _bytes_column(fields: pa.Schema) -> str | None:
    """The column of the videos: the only one that holds bytes, else one by its name."""
    found = [name for name in fields.names if _holds_bytes(fields.field(name).type)]
    named = [name for name in BYTES_NAMES if name in found]
    name = found[0] if len(found) == 1 else (named[0] if named else None)
    if name is None:
        return None
    kind = fields.field(name).type
    if not pa.types.is_struct(kind):
        return name
    return f"{name}.bytes" if any(field.name == "bytes" for field in kind) else None


def is_cell(uri: str) -> bool:
    """Whether an address names a cell of a Parquet file."""
    return uri.startswith(PREFIX)


def read_cell(uri: str, stream: BinaryIO) -> io.BytesIO:
    """The bytes of one cell; rows before it in its row group are passed over one by one, so memory holds one cell.

    Args:
        uri: Of the cell.
        stream: The Parquet file.

    Raises:
        OSError: the file has no such cell.
    """
    column, _, row_text = uri.removeprefix(PREFIX).partition("::")[0].rpartition("/")
    column, row = unquote(column), int(row_text)
    try:
        file = pq.ParquetFile(stream)
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row < count:
                for number, batch in enumerate(file.iter_batches(1, row_groups=[group], columns=[column])):
                    if number == row and (data := _leaf(batch, column)) is not None:
                        return io.BytesIO(data)
                break
            row -= count
    except (ValueError, KeyError, IndexError) as error:
        raise OSError(f"{uri}: {error}") from error
    raise OSError(f"{uri}: there are no bytes in this cell")
