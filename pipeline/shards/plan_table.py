"""The append-only plan on disk: for each batch of videos one file of units and one of videos, the latter last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.shards.tables import FACTS, FAILURES, failure_of, failure_row, read_table, write_table
from pipeline.values import ClipSpec, PicturePolicy, PlannedVideo, ShardPlan, Unit, VideoSource, VideoTiming

UNITS = pa.schema(
    [
        ("shard_id", pa.string()),
        ("unit_id", pa.string()),
        ("video_id", pa.string()),
        ("clip_index", pa.list_(pa.int32())),
        ("start_ns", pa.list_(pa.int64())),
        ("end_ns", pa.list_(pa.int64())),
        ("frame_pts", pa.list_(pa.list_(pa.int64()))),
        ("frame_instants", pa.list_(pa.list_(pa.int32()))),
    ]
)

VIDEOS = pa.schema(
    [
        *FACTS,
        ("num_clips", pa.int32()),
        ("num_instants", pa.int64()),
        ("end_ns", pa.int64()),
        ("timing", pa.string()),
        ("key_pts", pa.list_(pa.int64())),
        ("failures", pa.list_(pa.struct(list(FAILURES)))),
        ("warnings", pa.list_(pa.string())),
    ]
)

_STORED = (*(name for name, _ in FACTS[3:]), "num_clips", "num_instants", "end_ns")
"""Fields of `PlannedVideo` that are columns of the same name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All batches together."""

    videos: dict[str, PlannedVideo]
    shards: tuple[ShardPlan, ...]


def append_batch(folder: Path, videos: Sequence[PlannedVideo], shards: Sequence[ShardPlan]) -> None:
    """Add a batch; its name follows from its videos, so a batch written twice is one batch."""
    digest = hashlib.sha256("\n".join(video.source.video_id for video in videos).encode()).hexdigest()[:16]
    sequence = len(list(folder.glob("*-videos.parquet")))
    stem = next((p.name[: -len("-videos.parquet")] for p in folder.glob(f"*-{digest}-videos.parquet")), None)
    stem = stem or f"{sequence:06d}-{digest}"
    rows = [_unit_row(shard.shard_id, unit) for shard in shards for unit in shard.units]
    write_table(folder / f"{stem}-units.parquet", rows, UNITS)
    write_table(folder / f"{stem}-videos.parquet", [_video_row(video) for video in videos], VIDEOS)


def read_plan(folder: Path) -> Plan:
    """Every committed batch, in the order they were added; a later word on a video replaces an earlier one."""
    videos: dict[str, PlannedVideo] = {}
    shards: dict[str, list[Unit]] = {}
    for path in sorted(folder.glob("*-videos.parquet")):
        videos |= {row["video_id"]: _video_of(row) for row in read_table(path)}
        for row in read_table(path.with_name(path.name.replace("-videos.", "-units."))):
            shards.setdefault(row["shard_id"], []).append(_unit_of(row))
    _drop_superseded(videos)
    return Plan(videos, tuple(ShardPlan(shard_id=k, units=tuple(units)) for k, units in shards.items()))


def _drop_superseded(videos: dict[str, PlannedVideo]) -> None:
    """An input that once could not be read has an id of its address; it goes when the address is read after all."""
    read = {video.source.uri for video in videos.values() if video.source.size_bytes >= 0}
    for video_id in [k for k, v in videos.items() if v.source.size_bytes < 0 and v.source.uri in read]:
        del videos[video_id]


def _unit_row(shard_id: str, unit: Unit) -> dict[str, Any]:
    return {
        "shard_id": shard_id,
        "unit_id": unit.unit_id,
        "video_id": unit.video_id,
        "clip_index": [clip.index for clip in unit.clips],
        "start_ns": [clip.start_ns for clip in unit.clips],
        "end_ns": [clip.end_ns for clip in unit.clips],
        "frame_pts": [list(clip.frame_pts) for clip in unit.clips],
        "frame_instants": [list(clip.frame_instants) for clip in unit.clips],
    }


def _unit_of(row: dict[str, Any]) -> Unit:
    columns = zip(
        row["clip_index"], row["start_ns"], row["end_ns"], row["frame_pts"], row["frame_instants"], strict=True
    )
    clips = tuple(
        ClipSpec(
            video_id=row["video_id"],
            index=index,
            start_ns=start_ns,
            end_ns=end_ns,
            frame_pts=tuple(frame_pts),
            frame_instants=tuple(frame_instants),
        )
        for index, start_ns, end_ns, frame_pts, frame_instants in columns
    )
    return Unit(unit_id=row["unit_id"], video_id=row["video_id"], clips=clips)


def _video_row(video: PlannedVideo) -> dict[str, Any]:
    timing = video.timing
    row: dict[str, Any] = {name: getattr(video, name) for name in _STORED}
    row |= {
        "video_id": video.source.video_id,
        "uri": video.source.uri,
        "size_bytes": video.source.size_bytes,
        "failures": [failure_row(failed) for failed in video.failures],
        "warnings": list(video.warnings),
    }
    if timing is not None:
        row |= {"timing": _timing_json(timing), "key_pts": timing.key_pts}
    return row


def _video_of(row: dict[str, Any]) -> PlannedVideo:
    timing = None
    if row["timing"] is not None:
        timing = _timing_of(row["timing"], row["uri"], row["key_pts"])
    return PlannedVideo(
        source=VideoSource(video_id=row["video_id"], uri=row["uri"], size_bytes=row["size_bytes"]),
        timing=timing,
        failures=tuple(failure_of(failed) for failed in row["failures"]),
        warnings=tuple(row["warnings"]),
        **{name: row[name] for name in _STORED},
    )


def _timing_json(timing: VideoTiming) -> str:
    data = asdict(timing)
    del data["uri"], data["key_pts"]
    return json.dumps(data, default=str, sort_keys=True)


def _timing_of(text: str, uri: str, key_pts: Sequence[int]) -> VideoTiming:
    data = json.loads(text)
    data["time_base"] = Fraction(data["time_base"])
    picture = data.pop("picture")
    picture["pixel_aspect"] = Fraction(picture["pixel_aspect"])
    return VideoTiming(uri=uri, key_pts=np.asarray(key_pts, dtype=np.int64), picture=PicturePolicy(**picture), **data)
