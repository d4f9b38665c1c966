"""Small tables of a run folder: videos, failures, and list files that name videos."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.publish import publish
from pipeline.values import FailedRange

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
    ("picture_policy", pa.string()),
    ("frames_header", pa.int64()),
    ("frames_found", pa.int64()),
    ("duration_header_s", pa.float64()),
    ("duration_found_s", pa.float64()),
]
"""What is known of a video, in the plan and in videos.parquet."""

VIDEOS = pa.schema(
    [
        *FACTS,
        ("clips", pa.int32()),
        ("clips_done", pa.int32()),
        ("damaged_frames", pa.int64()),
        ("status", pa.string()),
        ("warnings", pa.list_(pa.string())),
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


def write_table(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
    """Write a small table whole."""
    table = pa.Table.from_pylist(list(rows), schema=schema)
    with publish(path) as stream:
        pq.write_table(table, stream, compression="zstd")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a small table whole, its columns and types those of the rows."""
    with publish(path) as stream:
        pq.write_table(pa.Table.from_pylist(list(rows)), stream, compression="zstd")


def read_table(path: Path) -> list[dict[str, Any]]:
    """All rows of a small table."""
    # Read through a plain handle: ParquetFile's own would outlive an error.
    with path.open("rb") as stream:
        rows: list[dict[str, Any]] = pq.ParquetFile(stream).read().to_pylist()
    return rows


def read_text_column(data: bytes, names: Sequence[str]) -> list[str]:
    """The first column of these names in a Parquet file.

    Raises:
        KeyError: it holds none of them.
        ValueError: it is no Parquet file.
    """
    file = pq.ParquetFile(io.BytesIO(data))
    for name in names:
        if name in file.schema_arrow.names:
            return [str(value) for value in file.read(columns=[name]).column(0).to_pylist()]
    raise KeyError(f"no column named {', '.join(names)} among {', '.join(file.schema_arrow.names)}")
