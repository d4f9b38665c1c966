from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import CachedClip, TokenCache
from pipeline.errors import RunFolderError, SettingsError
from pipeline.shards.manifest import write_shard
from tests.pipeline.clips_made import RUN, made_clip


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for shard, indices in (("a" * 16, (0, 1, 2)), ("b" * 16, (3, 4, 5, 6))):
        write_shard(tmp_path, shard, [made_clip(i) for i in indices], [], RUN, ("parquet",))
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    return tmp_path


def test_by_position_and_by_id(out: Path) -> None:
    cache = TokenCache(out)
    assert len(cache) == 7
    assert [clip.clip_index for clip in cache] == list(range(7))
    assert cache[-1].clip_index == 6
    assert cache[f"{'ab' * 16}-000005"].clip_index == 5
    assert cache.clip_ids[2] == f"{'ab' * 16}-000002"


def test_what_comes_back(out: Path) -> None:
    clip, made = TokenCache(out)[3], made_clip(3)
    assert isinstance(clip.tokens, torch.Tensor)
    np.testing.assert_array_equal(clip.tokens.numpy(), made.tokens)
    assert clip.group.dtype == torch.int64
    assert int(clip.sizes.sum()) == len(clip.group) == 30
    assert torch.equal(clip.unmerged()[7], clip.tokens[clip.group[7]])
    assert clip.grid_thw == (3, 2, 5)
    with pytest.raises(AttributeError):
        clip.uri = "other"  # type: ignore[misc]


def test_a_run_of_another_version_is_refused_in_one_line(out: Path) -> None:
    (out / "run.json").write_text(json.dumps({name: held for name, held in RUN.items() if name != "fingerprinted"}))
    with pytest.raises(RunFolderError, match=r"written by another version .*run\.json lacks 'fingerprinted'"):
        TokenCache(out)


def test_numpy(out: Path) -> None:
    clip = TokenCache(out, arrays="numpy")[0]
    assert isinstance(clip.tokens, np.ndarray)
    assert clip.group.dtype == np.int64


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("bfloat16", 2**-7), ("int8", 0.02), ("int4", 0.09), ("float32", 0.0)]
)
@pytest.mark.parametrize("arrays", ["torch", "numpy"])
def test_other_dtypes_come_back_as_numbers(tmp_path: Path, dtype: str, tolerance: float, arrays: str) -> None:
    write_shard(tmp_path, "a" * 16, [made_clip(0, dtype=dtype)], [], RUN, ("parquet",))
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    tokens = TokenCache(tmp_path, arrays=arrays)[0].tokens  # type: ignore[arg-type]
    exact = made_clip(0, dtype="float32").tokens
    got = tokens.float().numpy() if isinstance(tokens, torch.Tensor) else tokens
    assert np.abs(got - exact).max() <= tolerance * np.abs(exact).max()


def test_what_is_not_there(out: Path) -> None:
    cache = TokenCache(out)
    with pytest.raises(IndexError, match="clip 7 of 7"):
        cache[7]
    with pytest.raises(KeyError, match="no clip of"):
        cache["nothing"]
    with pytest.raises(ValueError, match="rank 3"):
        cache.stream(rank=3, num_ranks=3)


def test_uncommitted_shards_are_not_seen(out: Path) -> None:
    (out / "commits" / f"{'b' * 16}.json").unlink()
    assert len(TokenCache(out)) == 3


def test_mixed_fingerprints_are_refused(out: Path) -> None:
    write_shard(out, "c" * 16, [made_clip(9)], [], RUN | {"fingerprint": "f" * 16}, ("parquet",))
    with pytest.raises(RunFolderError, match="fingerprint"):
        TokenCache(out)


def test_no_run_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"run\.json"):
        TokenCache(tmp_path)


def test_videos_slices_and_what_is_in_them(out: Path) -> None:
    other = "cd" * 16
    write_shard(out, "d" * 16, [made_clip(i, video_id=other) for i in (0, 1)], [], RUN, ("webdataset",))
    cache = TokenCache(out)
    assert {video_id: len(view) for video_id, view in cache.videos.items()} == {"ab" * 16: 7, other: 2}
    first = cache.videos["ab" * 16]
    assert [clip.clip_index for clip in first] == list(range(7))
    assert [clip.clip_index for clip in first[5:1:-2]] == [5, 3]
    assert first[-1].clip_index == 6
    assert f"{'ab' * 16}-000004" in first
    assert first[4] in first
    assert f"{'ab' * 16}-000004" not in cache.videos[other]
    assert [clip.clip_id for clip in cache[6:8]] == [f"{'ab' * 16}-000006", f"{other}-000000"]
    assert repr(cache[1:4]) == f"ClipView(3 clips of {str(out)!r})"
    assert len(repr(cache[0])) < 120


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("arrays", ["torch", "numpy"])
def test_reading_rows_is_reading_clips(tmp_path: Path, form: str, dtype: str, arrays: Any) -> None:
    write_shard(tmp_path, "a" * 16, [made_clip(i, dtype=dtype) for i in range(5)], [], RUN, (form,))
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    cache = TokenCache(tmp_path, arrays=arrays)
    order = [3, 0, 4, 1]
    for position, clip in zip(order, cache.read(order), strict=True):
        one = cache[position]
        for field in fields(CachedClip):
            mine, theirs = getattr(clip, field.name), getattr(one, field.name)
            if isinstance(theirs, torch.Tensor | np.ndarray):
                assert (type(mine), mine.dtype, mine.shape) == (type(theirs), theirs.dtype, theirs.shape)
                assert bool((mine == theirs).all())
            else:
                assert mine == theirs, field.name
    (few,) = cache.read([2], ("tokens", "sizes"))
    assert (few.group, few.centers, few.pooled, few.frame_time_ns) == (None, None, None, None)
    assert bool((few.tokens == cache[2].tokens).all())
    with pytest.raises(SettingsError, match="'colour' is no array of a clip: choose from tokens"):
        cache.read([2], ("colour",))


def test_what_is_not_asked_for_is_not_read(out: Path) -> None:
    """With the bytes of the map destroyed, training goes on and a reader of the map sees it."""
    import pyarrow.parquet as pq

    for path in (out / "shards").glob("*.parquet"):
        group = pq.ParquetFile(path).metadata.row_group(0)
        columns = [group.column(i) for i in range(group.num_columns)]
        (place,) = [column for column in columns if column.path_in_schema == "group_bytes"]
        data = bytearray(path.read_bytes())
        start = place.data_page_offset
        data[start : start + place.total_compressed_size] = b"\xff" * place.total_compressed_size
        path.write_bytes(data)
    cache = TokenCache(out)
    assert len(list(cache.read(range(7), ("tokens", "sizes", "centers", "frame_time_ns")))) == 7
    with pytest.raises(RunFolderError, match="cannot be read"):
        list(cache.read(range(7)))


@pytest.mark.filterwarnings("error")
def test_a_cache_that_is_gone_holds_no_file(tmp_path: Path) -> None:
    write_shard(tmp_path, "a" * 16, [made_clip(i) for i in range(2)], [], RUN, ("webdataset",))
    (tmp_path / "run.json").write_text(json.dumps(RUN))

    def held() -> list[str]:
        links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return [str(target) for target in map(os.path.realpath, links) if str(target).endswith(".tar")]

    cache = TokenCache(tmp_path)
    assert len(cache[0].tokens)
    assert len(held()) == 1
    cache.close()
    assert not held()
    assert len(cache[1].tokens)
    assert len(held()) == 1
    del cache
    assert not held()
