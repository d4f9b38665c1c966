from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from pipeline import CachedClip, TokenCache
from pipeline.errors import RunFolderError
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


def test_numpy(out: Path) -> None:
    clip = TokenCache(out, arrays="numpy")[0]
    assert isinstance(clip.tokens, np.ndarray)
    assert clip.group.dtype == np.int64


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-7), ("int8", 0.02), ("float32", 0.0)])
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
        next(cache.stream(rank=3, num_ranks=3))


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


@pytest.mark.parametrize("shuffle_seed", [None, 5])
def test_ranks_share_every_clip_once(out: Path, shuffle_seed: int | None) -> None:
    cache = TokenCache(out)
    parts = [
        [clip.clip_index for clip in cache.stream(rank=rank, num_ranks=3, shuffle_seed=shuffle_seed)]
        for rank in range(3)
    ]
    together = [index for part in parts for index in part]
    assert sorted(together) == list(range(7))
    assert all(parts)
    assert (together == [0, 3, 6, 1, 4, 2, 5]) == (shuffle_seed is None)


def test_a_pass_goes_on_where_it_was(out: Path) -> None:
    cache = TokenCache(out)
    whole = [clip.clip_index for clip in cache.stream(shuffle_seed=1)]
    assert [clip.clip_index for clip in cache.stream(shuffle_seed=1, start=4)] == whole[4:]


class Streamed(IterableDataset[int]):
    def __init__(self, cache: TokenCache) -> None:
        self.cache = cache

    def __iter__(self):  # type: ignore[no-untyped-def]
        return (clip.clip_index for clip in self.cache.stream())


def test_workers_of_a_loader_share_every_clip_once(out: Path) -> None:
    cache = TokenCache(out)
    assert isinstance(cache[0], CachedClip)  # a file is open when the workers start
    loader = DataLoader(Streamed(cache), batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert sorted(int(index) for index in loader) == list(range(7))
