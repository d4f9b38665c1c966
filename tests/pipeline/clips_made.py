"""Token sets made of nothing but numbers, for tests of shards and readers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pipeline.cache.token_values import stored_tokens
from pipeline.values import TokenSet

RUN: dict[str, Any] = {
    "schema_version": 1,
    "fingerprint": "0123456789abcdef",
    "settings": {"layer": -1},
    "fingerprinted": {"layer": -1},
    "encoder": {"name": "made", "dim": 7},
    "versions": {},
}


def made_clip(index: int, *, video_id: str = "ab" * 16, dtype: Any = "float16", seed: int = 0) -> TokenSet:
    """A consistent clip: 3 frames of 2 x 5 patches, 11 tokens of 7 channels."""
    random = np.random.default_rng(seed + index)
    group = np.concatenate([np.arange(11), random.integers(0, 11, 19)]).astype(np.uint16)
    values = random.normal(size=(11, 7)).astype(np.float32)
    scale: Any = None
    tokens: Any = values.astype(np.float16)
    if dtype == "float32":
        tokens = values
    elif dtype == "bfloat16":
        tokens = (values.view(np.uint32) >> 16).astype(np.uint16)
    elif dtype == "int8":
        scale = (np.abs(values).max(axis=1) / 127).astype(np.float32)
        tokens = np.round(values / scale[:, None]).astype(np.int8)
    elif dtype == "int4":
        tokens, scale = stored_tokens(torch.from_numpy(values), dtype)
    pooled = random.normal(size=7).astype(np.float32)
    return TokenSet(
        clip_id=f"{video_id}-{index:06d}",
        video_id=video_id,
        uri="somewhere/film é.mp4",
        clip_index=index,
        start_ns=index * 3_000_000_000,
        end_ns=(index + 1) * 3_000_000_000,
        frame_time_ns=np.arange(3, dtype=np.int64) * 1_000_000_000 + index * 3_000_000_000,
        grid_thw=(3, 2, 5),
        tokens=tokens,
        tokens_dtype=dtype,
        tokens_scale=scale,
        sizes=np.bincount(group, minlength=11).astype(np.int32),
        centers=random.random((11, 3)).astype(np.float32),
        group=group,
        pooled=pooled / np.linalg.norm(pooled),
        fidelity=0.5,
        motion_source="none",
        damaged_frames=index % 2,
    )
