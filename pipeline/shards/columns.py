"""The row of a clip: its Arrow schema, and the way from a token set to columns and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.shards.four_bits import packed, unpacked_tokens
from pipeline.values import TokenSet

PAYLOAD = (
    "tokens_bytes",
    "tokens_scale_bytes",
    "sizes_bytes",
    "centers_bytes",
    "group_bytes",
    "parent_bytes",
    "loss_bytes",
    "weights_bytes",
)
"""Columns of raw bytes: stored plain, because compressing them costs ten times the reading time for a few percent."""

NUMPY_DTYPES = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "int8": "i1", "uint16": "<u2", "uint32": "<u4"}


def schema(dim: int) -> pa.Schema:
    """The columns of a shard of D = dim channels."""
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("video_id", pa.string()),
            ("uri", pa.string()),
            ("clip_index", pa.int32()),
            ("start_ns", pa.int64()),
            ("end_ns", pa.int64()),
            ("frame_time_ns", pa.list_(pa.int64())),
            ("grid_thw", pa.list_(pa.int32(), 3)),
            ("tokens_bytes", pa.large_binary()),
            ("tokens_shape", pa.list_(pa.int64())),
            ("tokens_dtype", pa.string()),
            ("tokens_scale_bytes", pa.large_binary()),
            ("sizes_bytes", pa.large_binary()),
            ("centers_bytes", pa.large_binary()),
            ("group_bytes", pa.large_binary()),
            ("group_dtype", pa.string()),
            ("parent_bytes", pa.large_binary()),
            ("loss_bytes", pa.large_binary()),
            ("weights_bytes", pa.large_binary()),
            ("pooled", pa.list_(pa.float32(), dim)),
            ("embedding", pa.list_(pa.float32())),
            ("fidelity", pa.float32()),
            ("motion_source", pa.string()),
            ("damaged_frames", pa.int32()),
            ("batch_frames", pa.int32()),
        ]
    )


def little_endian(array: np.ndarray[Any, Any]) -> bytes:
    """The bytes of an array, in the order of columns."""
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def row_of(clip: TokenSet) -> dict[str, Any]:
    """A token set as one row."""
    return {
        "clip_id": clip.clip_id,
        "video_id": clip.video_id,
        "uri": clip.uri,
        "clip_index": clip.clip_index,
        "start_ns": clip.start_ns,
        "end_ns": clip.end_ns,
        "frame_time_ns": clip.frame_time_ns.tolist(),
        "grid_thw": list(clip.grid_thw),
        "tokens_bytes": little_endian(packed(clip.tokens) if clip.tokens_dtype == "int4" else clip.tokens),
        "tokens_shape": list(clip.tokens.shape),
        "tokens_dtype": clip.tokens_dtype,
        "tokens_scale_bytes": None if clip.tokens_scale is None else little_endian(clip.tokens_scale),
        "sizes_bytes": little_endian(clip.sizes),
        "centers_bytes": little_endian(clip.centers),
        "group_bytes": little_endian(clip.group),
        "group_dtype": clip.group.dtype.name,
        "parent_bytes": None if clip.parent is None else little_endian(clip.parent),
        "loss_bytes": None if clip.loss is None else little_endian(clip.loss),
        "weights_bytes": None if clip.weights is None else little_endian(clip.weights),
        "pooled": clip.pooled.tolist(),
        "embedding": None if clip.embedding is None else clip.embedding.tolist(),
        "fidelity": clip.fidelity,
        "motion_source": clip.motion_source,
        "damaged_frames": clip.damaged_frames,
        "batch_frames": clip.batch_frames,
    }


def tokens_of(
    data: bytes, scale: bytes | None, dtype: str, shape: Sequence[int]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Tokens and their scales of the bytes of their columns; the shape is (M, D).

    Raises:
        ValueError: lengths do not fit the shape, or there are no scales where there must be.
        KeyError: a dtype that this schema does not know.
    """
    if dtype == "int4":
        return unpacked_tokens(np.frombuffer(data, np.uint8), np.frombuffer(scale or b"", "<f2"), shape)
    tokens = np.frombuffer(data, dtype=NUMPY_DTYPES[dtype]).reshape(shape)
    return tokens, None if scale is None else np.frombuffer(scale, dtype="<f4")


def clip_of(row: dict[str, Any]) -> TokenSet:
    """The token set of a row; its arrays are views of the row's bytes.

    Raises:
        ValueError: lengths do not fit the shapes.
        KeyError: a dtype that this schema does not know.
    """
    num_tokens = row["tokens_shape"][0]
    scale, parent, loss = row["tokens_scale_bytes"], row.get("parent_bytes"), row.get("loss_bytes")
    weights = row.get("weights_bytes")
    group_dtype = NUMPY_DTYPES[row["group_dtype"]]
    tokens, tokens_scale = tokens_of(row["tokens_bytes"], scale, row["tokens_dtype"], row["tokens_shape"])
    return TokenSet(
        clip_id=row["clip_id"],
        video_id=row["video_id"],
        uri=row["uri"],
        clip_index=row["clip_index"],
        start_ns=row["start_ns"],
        end_ns=row["end_ns"],
        frame_time_ns=np.asarray(row["frame_time_ns"], dtype=np.int64),
        grid_thw=tuple(row["grid_thw"]),
        tokens=tokens,
        tokens_dtype=row["tokens_dtype"],
        tokens_scale=tokens_scale,
        sizes=np.frombuffer(row["sizes_bytes"], dtype="<i4"),
        centers=np.frombuffer(row["centers_bytes"], dtype="<f4").reshape(num_tokens, 3),
        group=np.frombuffer(row["group_bytes"], dtype=group_dtype),
        parent=None if parent is None else np.frombuffer(parent, dtype=group_dtype),
        loss=None if loss is None else np.frombuffer(loss, dtype="<f4"),
        weights=None if weights is None else np.frombuffer(weights, dtype="<f4"),
        pooled=np.asarray(row["pooled"], dtype=np.float32),
        embedding=None if row["embedding"] is None else np.asarray(row["embedding"], dtype=np.float32),
        fidelity=row["fidelity"],
        motion_source=row["motion_source"],
        damaged_frames=row["damaged_frames"],
        batch_frames=row["batch_frames"],
    )
