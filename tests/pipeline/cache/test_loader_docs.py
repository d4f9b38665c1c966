"""What docs/loaders.md shows is run as it stands there, for every dtype of tokens."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from pipeline import TokenCache
from pipeline.settings import TokenDtype
from pipeline.shards.manifest import write_shard
from tests.pipeline.clips_made import RUN, made_clip

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "loaders.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def a_run(folder: Path, dtype: str) -> Path:
    out = folder / "out"
    out.mkdir(parents=True)
    clips = [made_clip(index, dtype=dtype) for index in range(7)]
    write_shard(out, "a" * 16, clips, [], RUN, ("parquet", "webdataset"))
    (out / "run.json").write_text(json.dumps(RUN))
    return out


def test_blocks_are_found() -> None:
    assert len(BLOCKS) == 6


@pytest.mark.parametrize("number", range(3))
def test_the_ways_of_reading(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(tmp_path, "float16")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], "docs/loaders.md", "exec"), {})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", get_args(TokenDtype))
def test_every_reader_gets_the_numbers(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = a_run(tmp_path, dtype)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"np": np, "io": io, "json": json, "torch": torch}
    for block in BLOCKS[3:]:
        exec(compile(block, "docs/loaders.md", "exec"), names)
    cache = TokenCache(out, arrays="numpy")
    for read in (names["read_by_datasets"], names["read_by_webdataset"]):
        assert read.keys() == set(cache.clip_ids)
        for clip in cache:
            np.testing.assert_array_equal(read[clip.clip_id], clip.tokens)
