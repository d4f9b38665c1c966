"""The append-only plan of a run folder: Parquet files of one row a video, with the shards of its clips."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.plan.units import Clip, ShardUnit, Unit
from pipeline.shards.tables import FACTS, FAILURES, failure_of, failure_row, read_tables, write_table
from pipeline.store import Store
from pipeline.values import PlannedVideo, VideoSource

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


@dataclass(frozen=True, slots=True)
class Plan:
    """All rows together."""

    videos: dict[str, PlannedVideo] = field(default_factory=dict)
    """By id, in the order in which they were planned."""
    shards: dict[str, list[Unit]] = field(default_factory=dict)
    """By id, each with its units in the order of its rows."""
    addresses: dict[tuple[str, str], str] = field(default_factory=dict)
    """Every address with its stamp that was read, with the id of what it held."""

    def attempts_of(self, video_ids: Collection[str]) -> Counter[Clip]:
        """How many shards each clip of these videos was planned for."""
        units = (unit for units in self.shards.values() for unit in units if unit.video_id in video_ids)
        return Counter(clip for unit in units for clip in unit.clips)


def append_rows(store: Store, rows: Sequence[PlanRow]) -> None:
    """Add rows as one file. Its name puts it after what is there, and nobody else can have it."""
    name = f"{FOLDER}/{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
    write_table(store, name, [_row(row) for row in rows], VIDEOS)


def read_plan(store: Store, *, broken: list[str] | None = None) -> Plan:
    """All rows in the order in which they were added.

    A later row of a video replaces what is known of it, and adds to its units.
    """
    return merge_rows(row for table in read_tables(store, FOLDER, VIDEOS, broken) for row in _rows_of(table))


def merge_rows(rows: Iterable[PlanRow]) -> Plan:
    """Rows to a plan; a unit that is there twice is one."""
    plan = Plan()
    for row in rows:
        source = row.video.source
        plan.addresses[source.uri, source.stamp] = source.video_id
        if not row.is_copy or source.video_id not in plan.videos:
            plan.videos[source.video_id] = row.video
        for shard_id, unit in row.units:
            units = plan.shards.setdefault(shard_id, [])
            if unit not in units:
                units.append(unit)
    _drop_superseded(plan.videos)
    return plan


def _drop_superseded(videos: dict[str, PlannedVideo]) -> None:
    """An input that once could not be read has an id of its address; it goes when the address is read after all."""
    read = {video.source.uri for video in videos.values() if video.source.size_bytes >= 0}
    for video_id in [k for k, v in videos.items() if v.source.size_bytes < 0 and v.source.uri in read]:
        del videos[video_id]


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


def _rows_of(table: pa.Table) -> Iterator[PlanRow]:
    """The rows of a table, column by column: a million of them are read in half a minute."""
    plain = [name for name in table.column_names if name not in ("units", "failures", "warnings")]
    columns = {name: table.column(name).to_pylist() for name in plain}
    shared: dict[str, str] = {}
    for name in (name for name in _STORED if pa.types.is_string(VIDEOS.field(name).type)):
        # A few texts in a million rows: each is kept once.
        columns[name] = [shared.setdefault(text, text) for text in columns[name]]
    units, failures, warnings = _units_of(table), _lists_of(table, "failures"), _lists_of(table, "warnings")
    stored = list(zip(*(columns[name] for name in _STORED), strict=True))
    for row, video_id in enumerate(columns["video_id"]):
        size_bytes, stamp = columns["size_bytes"][row], columns["stamp"][row]
        video = PlannedVideo(
            source=VideoSource(video_id=video_id, uri=columns["uri"][row], size_bytes=size_bytes, stamp=stamp),
            failures=tuple(failure_of(failed) for failed in failures[row]),
            warnings=tuple(warnings[row]),
            **dict(zip(_STORED, stored[row], strict=True)),
        )
        held = tuple(ShardUnit(shard_id, Unit(video_id, first, count)) for shard_id, first, count in units[row])
        yield PlanRow(video, held, columns["is_copy"][row])


def _lists_of(table: pa.Table, name: str) -> list[list[Any]]:
    column = table.column(name)
    # Hardly ever is there anything in them.
    if not pc.sum(pc.list_value_length(column)).as_py():
        return [[]] * len(table)
    rows: list[list[Any]] = column.to_pylist()
    return rows


def _units_of(table: pa.Table) -> list[list[tuple[str, int, int]]]:
    """Shard, first clip and number of clips of each unit, by row."""
    lengths = pc.list_value_length(table.column("units")).to_pylist()
    flat = pc.list_flatten(table.column("units")).combine_chunks()
    shared: dict[str, str] = {}
    shards = [shared.setdefault(text, text) for text in flat.field("shard_id").to_pylist()]
    units = zip(shards, flat.field("first").to_pylist(), flat.field("count").to_pylist(), strict=True)
    return [list(islice(units, length)) for length in lengths]
