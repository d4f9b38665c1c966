"""Small tables of a run folder: videos, failures, and list files that name videos."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunFolderError
from pipeline.failed_range import FailedRange
from pipeline.store import Store

BATCH_ROWS = 5000

FAILURES = pa.schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("start_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("class", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("stage", pa.string()),
        ("node", pa.string()),
    ]
)

FAILURE_RECORDS = pa.schema([*FAILURES, ("replay", pa.string())])
"""failures.parquet: each row with the command that does again what failed."""

FACTS = [
    ("video_id", pa.string()),
    ("uri", pa.string()),
    ("size_bytes", pa.int64()),
    ("container", pa.string()),
    ("codec", pa.string()),
    ("pixel_format", pa.string()),
    ("width_px", pa.int32()),
    ("height_px", pa.int32()),
    ("rotation_deg", pa.int32()),
    ("mirrored", pa.bool_()),
    ("has_audio", pa.bool_()),
    ("picture_policy", pa.string()),
    ("frames_header", pa.int64()),
    ("frames_found", pa.int64()),
    ("duration_header_s", pa.float64()),
    ("duration_found_s", pa.float64()),
]
"""What is known of a video, in the plan and in videos.parquet."""

ADDED = frozenset({"has_audio"})
"""Columns that tables of earlier releases lack."""

VIDEOS = pa.schema(
    [
        *FACTS,
        ("start_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("clips", pa.int32()),
        ("clips_done", pa.int32()),
        ("damaged_frames", pa.int64()),
        ("status", pa.string()),
        ("warnings", pa.list_(pa.string())),
        ("labels", pa.string()),
    ]
)


def failure_row(failed: FailedRange) -> dict[str, Any]:
    """A failed range as a row; `class` is the column's name, and no name in Python."""
    row = asdict(failed)
    row["class"] = row.pop("failure")
    return row


def failure_of(row: dict[str, Any]) -> FailedRange:
    """The failed range of a row."""
    values = dict(row)
    values["failure"] = values.pop("class")
    return FailedRange(**values)


def write_table(store: Store, name: str, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
    """Write a table whole; of its rows, memory holds a few thousand at a time."""
    store.put(name, packed_table(rows, schema))


def packed_table(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> bytes:
    """The file of a table."""
    rows = iter(rows)
    batches = iter(lambda: list(islice(rows, BATCH_ROWS)), [])
    return _packed((pa.Table.from_pylist(batch, schema=schema) for batch in batches), schema)


def _packed(tables: Iterable[pa.Table], schema: pa.Schema) -> bytes:
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
    return buffer.getvalue()


def write_rows(store: Store, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write a small table whole, its columns and types those of the rows."""
    table = pa.Table.from_pylist(list(rows))
    put_tables(store, name, [table], table.schema)


def put_tables(store: Store, name: str, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables as one file."""
    store.put(name, _packed(tables, schema))


def read_table(store: Store, name: str) -> list[dict[str, Any]]:
    """All rows of a small table.

    Raises:
        RunFolderError: it cannot be read.
    """
    rows: list[dict[str, Any]] = _table(store, name, None).to_pylist()
    return rows


def _table(store: Store, name: str, schema: pa.Schema | None) -> pa.Table:
    try:
        table = pq.ParquetFile(io.BytesIO(store.get(name))).read()
        if schema is not None:
            table = with_all_columns(table, schema)
    except ValueError as error:
        raise RunFolderError(f"{store.address}/{name} is no table ({error}): `vtm repair` removes it") from error
    return table


def with_all_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table in a schema, those of `ADDED` that it lacks as null.

    Raises:
        ValueError: its columns are others.
    """
    for place, field in enumerate(schema):
        if field.name in ADDED and field.name not in table.column_names:
            table = table.add_column(place, field, pa.nulls(len(table), field.type))
    if table.schema.remove_metadata() != schema:
        raise ValueError("its columns are others")
    return table


def read_tables(store: Store, folder: str, schema: pa.Schema, broken: list[str] | None = None) -> Iterator[pa.Table]:
    """All tables of a folder, in the order of their names, a few thousand rows at a time.

    Args:
        store: Where they are.
        folder: In it.
        schema: What they hold.
        broken: Takes the names of those that cannot be read; without it they are an error.

    Raises:
        RunFolderError: one cannot be read.
    """
    for entry in store.list(folder):
        if not entry.name.endswith(".parquet"):
            continue
        try:
            table = _table(store, entry.name, schema)
        except RunFolderError:
            if broken is None:
                raise
            broken.append(entry.name)
            continue
        for first in range(0, len(table), BATCH_ROWS):
            yield table.slice(first, BATCH_ROWS)
