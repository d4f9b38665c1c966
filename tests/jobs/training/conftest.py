from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.shards.manifest import write_shard
from tests.pipeline.clips_made import RUN, made_clip

VIDEOS = 21
SMALL = ["--widths", "6", "5", "--windows", "1", "3", "--heads", "1", "--head-width", "5", "--partition-factor", "3"]
TRAINING = ["--epochs", "4", "--warmup-epochs", "1", "--batch-clips", "5", "--learning-rate", "0.02", *SMALL]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two clips each of 21 videos; the sign of the first channel is the class."""
    clips = []
    for video in range(VIDEOS):
        for index in range(2):
            clip = made_clip(index, video_id=f"{video:032x}", seed=video)
            tokens = clip.tokens.copy()
            tokens[:, 0] += 2.0 if video % 2 else -2.0
            clips.append(dataclasses.replace(clip, tokens=tokens, uri=f"videos/v{video}.mp4"))
    folder = tmp_path / "cache"
    folder.mkdir()
    write_shard(folder, "a" * 16, clips, [], RUN, ("parquet",))
    (folder / "run.json").write_text(json.dumps(RUN))
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    split = ["train"] * 13 + ["val"] * 4 + ["test"] * 4
    rows = [f"v{video},{'odd' if video % 2 else 'even'},{split[video]}\n" for video in range(VIDEOS)]
    path = tmp_path / "labels.csv"
    path.write_text("video_id,label,split\n" + "".join(rows))
    return path
