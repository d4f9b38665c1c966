"""All clips of one shard file, one after the other: for verification and reports, which read everything."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.shards.columns import NUMPY_DTYPES, clip_of
from pipeline.values import TokenSet


def read_shard(path: Path) -> Iterator[TokenSet]:
    """Clips of a Parquet or WebDataset shard, in memory one row group, or one sample, at a time.

    Raises:
        OSError, ValueError, KeyError: the file is damaged.
    """
    if path.suffix == ".parquet":
        with path.open("rb") as stream:
            file = pq.ParquetFile(stream)
            for group in range(file.metadata.num_row_groups):
                yield from map(clip_of, file.read_row_group(group).to_pylist())
    else:
        yield from _read_tar(path)


def _read_tar(path: Path) -> Iterator[TokenSet]:
    import webdataset

    for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
        scalars = json.loads(sample["json"])
        if "tokens.npy" in sample:
            tokens, scale = _npy(sample["tokens.npy"]), None
        else:
            tokens, scale = _safetensors(sample["tokens.safetensors"], scalars["tokens_dtype"])
        same = ("clip_id", "video_id", "uri", "clip_index", "start_ns", "end_ns", "fidelity", "motion_source")
        yield TokenSet(
            **{name: scalars[name] for name in (*same, "damaged_frames", "tokens_dtype")},
            frame_time_ns=np.asarray(scalars["frame_time_ns"], dtype=np.int64),
            grid_thw=tuple(scalars["grid_thw"]),
            tokens=tokens,
            tokens_scale=scale,
            sizes=_npy(sample["sizes.npy"]),
            centers=_npy(sample["centers.npy"]),
            group=_npy(sample["group.npy"]),
            parent=_npy(sample["parent.npy"]) if "parent.npy" in sample else None,
            loss=_npy(sample["loss.npy"]) if "loss.npy" in sample else None,
            weights=_npy(sample["weights.npy"]) if "weights.npy" in sample else None,
            pooled=np.asarray(scalars["pooled"], dtype=np.float32),
        )


def _npy(data: bytes) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _safetensors(data: bytes, dtype: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    import safetensors.torch
    import torch

    tensors = safetensors.torch.load(data)
    tokens = tensors["tokens"]
    bits = tokens.view(torch.uint16) if dtype == "bfloat16" else tokens
    scale = tensors["scale"].numpy() if "scale" in tensors else None
    return bits.numpy().astype(NUMPY_DTYPES[dtype], copy=False), scale
