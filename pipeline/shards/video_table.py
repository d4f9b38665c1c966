"""Tokens of whole videos in a run folder: one small Parquet file a video, of one row."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.cache.video_tokens import VideoTokens
from pipeline.errors import RunFolderError
from pipeline.shards.columns import NUMPY_DTYPES, little_endian, tokens_of
from pipeline.shards.four_bits import packed
from pipeline.store import Where, open_store

FOLDER = "videos"
METADATA_KEY = b"vtm_video"
SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("num_sources", pa.int64()),
        ("fidelity", pa.float32()),
        ("tokens_bytes", pa.large_binary()),
        ("tokens_shape", pa.list_(pa.int64())),
        ("tokens_dtype", pa.string()),
        ("tokens_scale_bytes", pa.large_binary()),
        ("sizes_bytes", pa.large_binary()),
        ("weights_bytes", pa.large_binary()),
        ("centers_bytes", pa.large_binary()),
        ("time_ns_bytes", pa.large_binary()),
        ("parent_bytes", pa.large_binary()),
        ("loss_bytes", pa.large_binary()),
        ("clip_ids", pa.list_(pa.string())),
        ("clip_tokens", pa.list_(pa.int32())),
        ("map_bytes", pa.large_binary()),
        ("map_dtype", pa.string()),
    ]
)
"""README.md describes the columns."""


def name_of(video_id: str) -> str:
    """Where a video's tokens are in the run."""
    return f"{FOLDER}/{video_id}.parquet"


def size_of(out: Where, video_id: str) -> int:
    """Bytes of a video's tokens; 0 where there are none."""
    entry = open_store(out).entry(name_of(video_id))
    return 0 if entry is None else entry.size_bytes


def write_video(out: Where, video: VideoTokens, made_by: dict[str, Any]) -> None:
    """Write one video's tokens; equal ones give equal bytes.

    Args:
        out: Where the run lives.
        video: The tokens.
        made_by: What decided them, carried in the file's metadata and compared by `is_made`.
    """
    row = {
        "tokens_shape": list(video.tokens.shape),
        "tokens_scale_bytes": None if video.tokens_scale is None else little_endian(video.tokens_scale),
        "clip_ids": list(video.clip_ids),
        "clip_tokens": list(video.clip_tokens),
        "map_dtype": video.map.dtype.name,
    }
    for name in ("video_id", "uri", "num_sources", "fidelity", "tokens_dtype"):
        row[name] = getattr(video, name)
    for name in ("tokens", "sizes", "weights", "centers", "time_ns", "parent", "loss", "map"):
        row[f"{name}_bytes"] = little_endian(getattr(video, name))
    if video.tokens_dtype == "int4":
        row["tokens_bytes"] = packed(video.tokens).tobytes()
    schema = SCHEMA.with_metadata({METADATA_KEY: json.dumps(made_by, sort_keys=True).encode()})
    with open_store(out).writer(name_of(video.video_id)) as stream:
        pq.write_table(pa.Table.from_pylist([row], schema=schema), stream, compression="none", use_dictionary=False)


def is_made(out: Where, video_id: str, made_by: dict[str, Any]) -> bool:
    """Whether a video's tokens are there, made by the same."""
    try:
        with open_store(out).open(name_of(video_id)) as stream:
            metadata = pq.ParquetFile(stream).schema_arrow.metadata or {}
        return bool(json.loads(metadata[METADATA_KEY]) == json.loads(json.dumps(made_by)))
    except (OSError, ValueError, KeyError):
        return False


def read_video(out: Where, video_id: str) -> VideoTokens:
    """One video's tokens.

    Raises:
        RunFolderError: there are none, or their file is damaged.
    """
    store = open_store(out)
    path = f"{store.address}/{name_of(video_id)}"
    if store.entry(name_of(video_id)) is None:
        raise RunFolderError(f"{path} is not there: `vtm merge {out} --tokens-per-video N` makes the tokens of videos")
    try:
        with store.open(name_of(video_id)) as stream:
            (row,) = pq.ParquetFile(stream).read().to_pylist()
        return _video_of(row)
    except (OSError, ValueError, KeyError) as error:
        raise RunFolderError(f"{path} is damaged ({error}): delete it and run `vtm merge` again") from error


def _video_of(row: dict[str, Any]) -> VideoTokens:
    map_dtype = NUMPY_DTYPES[row["map_dtype"]]
    tokens, scale = tokens_of(row["tokens_bytes"], row["tokens_scale_bytes"], row["tokens_dtype"], row["tokens_shape"])
    return VideoTokens(
        video_id=row["video_id"],
        uri=row["uri"],
        num_sources=row["num_sources"],
        fidelity=row["fidelity"],
        clip_ids=tuple(row["clip_ids"]),
        clip_tokens=tuple(row["clip_tokens"]),
        map=np.frombuffer(row["map_bytes"], dtype=map_dtype),
        tokens=tokens,
        tokens_dtype=row["tokens_dtype"],
        tokens_scale=scale,
        sizes=np.frombuffer(row["sizes_bytes"], dtype="<i8"),
        weights=np.frombuffer(row["weights_bytes"], dtype="<f4"),
        centers=np.frombuffer(row["centers_bytes"], dtype="<f4").reshape(-1, 3),
        time_ns=np.frombuffer(row["time_ns_bytes"], dtype="<i8"),
        parent=np.frombuffer(row["parent_bytes"], dtype=map_dtype),
        loss=np.frombuffer(row["loss_bytes"], dtype="<f4"),
    )
