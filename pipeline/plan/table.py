"""The append-only plan of a run folder: Parquet files of one row a video, with the shards of its clips."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.inputs.named import VideoSource
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import ShardUnit
from pipeline.shards.tables import FACTS, FAILURES, failure_of, failure_row, write_table
from pipeline.store import Store

VIDEOS = pa.schema(
    [
        *FACTS,
        ("stamp", pa.string()),
        ("num_clips", pa.int32()),
        ("num_instants", pa.int64()),
        ("first_instant", pa.int64()),
        ("start_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("is_sequential", pa.bool_()),
        ("units", pa.list_(pa.struct([("shard_id", pa.string()), ("first", pa.int32()), ("count", pa.int32())]))),
        ("failures", pa.list_(pa.struct(list(FAILURES)))),
        ("warnings", pa.list_(pa.string())),
        ("is_copy", pa.bool_()),
    ]
)

FOLDER = "plan/videos"
_STORED = (
    *(name for name, _ in FACTS[3:]),
    *("num_clips", "num_instants", "first_instant", "start_ns", "end_ns", "is_sequential"),
)
"""Fields of `PlannedVideo` that are columns of the same name."""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A video, and what of it goes into which shard."""

    video: PlannedVideo
    units: tuple[ShardUnit, ...] = ()
    is_copy: bool = False
    """Whether the address is a further one of the video, which was planned from another."""


def append_rows(store: Store, rows: Sequence[PlanRow]) -> None:
    """Add rows as one file. Its name puts it after what is there, and nobody else can have it."""
    name = f"{FOLDER}/{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
    write_table(store, name, [_row(row) for row in rows], VIDEOS)


def _row(row: PlanRow) -> dict[str, Any]:
    video = row.video
    return {name: getattr(video, name) for name in _STORED} | {
        "video_id": video.source.video_id,
        "uri": video.source.uri,
        "size_bytes": video.source.size_bytes,
        "stamp": video.source.stamp,
        "units": [{"shard_id": s, "first": unit.first, "count": unit.count} for s, unit in row.units],
        "failures": [failure_row(failed) for failed in video.failures],
        "warnings": list(video.warnings),
        "is_copy": row.is_copy,
    }


def videos_of(table: pa.Table) -> Iterator[PlannedVideo]:
    """The videos of rows, column by column; their units are not looked at."""
    plain = [name for name in table.column_names if name not in ("units", "failures", "warnings")]
    columns = {name: table.column(name).to_pylist() for name in plain}
    failures, warnings = _lists_of(table, "failures"), _lists_of(table, "warnings")
    stored = zip(*(columns[name] for name in _STORED), strict=True)
    for row, (video_id, values) in enumerate(zip(columns["video_id"], stored, strict=True)):
        size_bytes, stamp = columns["size_bytes"][row], columns["stamp"][row]
        yield PlannedVideo(
            source=VideoSource(video_id=video_id, uri=columns["uri"][row], size_bytes=size_bytes, stamp=stamp),
            failures=tuple(failure_of(failed) for failed in failures[row]),
            warnings=tuple(warnings[row]),
            **dict(zip(_STORED, values, strict=True)),
        )


def _lists_of(table: pa.Table, name: str) -> list[list[Any]]:
    column = table.column(name)
    # Hardly ever is there anything in them.
    if not pc.sum(pc.list_value_length(column)).as_py():
        return [[]] * len(table)
    rows: list[list[Any]] = column.to_pylist()
    return rows
