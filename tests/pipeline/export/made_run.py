"""Runs whose clips are known, for exports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.shards.manifest import write_shard
from pipeline.values import TokenSet
from tests.pipeline.clips_made import RUN, made_clip


def write_run(out: Path, clips: Sequence[TokenSet], run: dict[str, Any] = RUN) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    write_shard(out, "a" * 16, clips, [], run, ("parquet",))
    (out / "run.json").write_text(json.dumps(run))
    return out


def clips_of(count: int, *, video_id: str = "ab" * 16, uri: str = "films/one.mp4", **made: Any) -> list[TokenSet]:
    """Clips of three frames, one every 1.3 s."""
    return [
        replace(
            made_clip(index, video_id=video_id, seed=sum(video_id.encode()), **made),
            uri=uri,
            frame_time_ns=(np.arange(3) + 3 * index) * 1_300_000_000,
        )
        for index in range(count)
    ]


def unmerged(clip: TokenSet) -> TokenSet:
    """A clip in which nothing is merged."""
    total = len(clip.group)
    order = np.arange(total)
    return replace(
        clip,
        tokens=clip.tokens[clip.group],
        sizes=np.ones(total, np.int32),
        centers=np.stack((order // 10, order // 5 % 2, order % 5), axis=1).astype(np.float32),
        group=order.astype(np.uint16),
    )
