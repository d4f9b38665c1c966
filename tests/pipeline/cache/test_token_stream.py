"""`TokenStream` over real shards: ranks, workers, formats, stores, restarts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline import JoinedClips, PackedBatch, PaddedBatch, TokenCache, TokenStream, collate, joined
from pipeline.errors import RunFolderError, SettingsError
from pipeline.shards.manifest import write_shard
from tests.pipeline.clips_made import RUN, made_clip

VIDEOS = {"ab" * 16: 13, "cd" * 16: 7, "ef" * 16: 3}
TOTAL = 23


def write_run(out: Any, videos: dict[str, int] = VIDEOS, run: dict[str, Any] = RUN, forms: Any = ("parquet",)) -> Any:
    """Shards of up to five clips."""
    if isinstance(out, Path):
        out.mkdir(exist_ok=True)
    for number, (video_id, count) in enumerate(videos.items()):
        clips = [made_clip(i, video_id=video_id, seed=100 * number) for i in range(count)]
        for first in range(0, count, 5):
            write_shard(out, f"{number:08x}{first:08x}", clips[first : first + 5], [], run, forms)
    if isinstance(out, Path):
        (out / "run.json").write_text(json.dumps(run))
    else:
        fsspec.filesystem("memory").pipe_file(out.removeprefix("memory:/") + "/run.json", json.dumps(run).encode())
    return out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_run(tmp_path / "out")
    return tmp_path / "out"


def ids(stream: Any) -> list[str]:
    return [clip.clip_id for clip in stream]


def test_an_epoch_is_every_clip_once_and_the_next_has_another_order(out: Path) -> None:
    stream = TokenStream(out, shuffle_seed=3, window=4)
    first, second = ids(stream), ids(stream)
    assert sorted(first) == sorted(second) == sorted(TokenCache(out).clip_ids)
    assert first != second
    stream.set_epoch(0)
    assert ids(stream) == first == ids(TokenStream(out, shuffle_seed=3, window=4))
    assert ids(TokenStream(out)) == TokenCache(out).clip_ids
    next(iter(stream))
    assert len(ids(stream)) == TOTAL  # an iteration that was broken off is begun anew


def test_what_comes_is_what_the_cache_holds(out: Path) -> None:
    cache = TokenCache(out)
    for clip in TokenStream(cache, shuffle_seed=1, columns=("tokens", "sizes", "pooled")):
        assert torch.equal(clip.tokens, cache[clip.clip_id].tokens)
        assert torch.equal(clip.pooled, cache[clip.clip_id].pooled)
        assert clip.group is None


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_ranks_get_equally_many(out: Path, num_ranks: int) -> None:
    def parts(**options: Any) -> list[list[str]]:
        return [ids(TokenStream(out, rank=rank, num_ranks=num_ranks, **options)) for rank in range(num_ranks)]

    for options in ({}, {"shuffle_seed": 7}):
        dropped, repeated, kept = (parts(uneven=uneven, **options) for uneven in ("drop", "repeat", "keep"))
        assert {len(part) for part in dropped} == {TOTAL // num_ranks}
        assert {len(part) for part in repeated} == {-(-TOTAL // num_ranks)}
        assert len({clip for part in dropped for clip in part}) == TOTAL // num_ranks * num_ranks
        assert {clip for part in repeated for clip in part} == set(TokenCache(out).clip_ids)
        assert sorted(clip for part in kept for clip in part) == sorted(TokenCache(out).clip_ids)
    assert len(TokenStream(out, rank=1, num_ranks=num_ranks)) == TOTAL // num_ranks


@pytest.mark.parametrize("where", ["parquet", "webdataset", "memory"])
def test_workers_and_a_restart_with_other_numbers(where: str, tmp_path: Path) -> None:
    """Four batches of three on two ranks of two workers; then the rest on one rank without workers."""
    if where == "memory":
        out: Any = write_run(f"memory://loaders-{tmp_path.name}/out")
    else:
        out = write_run(tmp_path / "out", forms=(where,))
    seen: list[str] = []
    state: Any = None
    for rank in range(2):
        stream = TokenStream(out, shuffle_seed=5, window=6, rank=rank, num_ranks=2)
        # fsspec's memory is this process's own: threads of it cannot be workers.
        workers = {"num_workers": 0} if where == "memory" else {"num_workers": 2, "multiprocessing_context": "fork"}
        loader = stream.loader(batch_size=3, **workers)  # type: ignore[arg-type]
        batches = iter(loader)
        for _ in range(2):
            seen += next(batches).ids
        state = json.loads(json.dumps(loader.state_dict()))
        del batches
    rest = TokenStream(out, shuffle_seed=5, window=6)
    rest.load_state_dict(state)
    assert len(rest) == TOTAL - 12
    last = [clip_id for batch in rest.loader(batch_size=4) for clip_id in batch.ids]
    assert sorted(seen + last) == sorted(TokenCache(out).clip_ids)
    assert rest.state_dict()["epoch"] == 1


def test_a_restart_with_the_same_numbers_goes_on_in_the_same_order(out: Path) -> None:
    def loader() -> Any:
        return TokenStream(out, shuffle_seed=2, window=8).loader(batch_size=2, num_workers=2)

    whole = [batch.ids for batch in loader()]
    broken = loader()
    batches = iter(broken)
    first = [next(batches).ids for _ in range(5)]
    again = loader()
    again.load_state_dict(broken.state_dict())
    assert len(again) == 7
    assert first + [batch.ids for batch in again] == whole
    # Without an order to shuffle, workers change nothing of it.
    in_order = TokenStream(out).loader(batch_size=2, num_workers=2)
    assert [clip_id for batch in in_order for clip_id in batch.ids] == TokenCache(out).clip_ids


def test_a_data_loader_of_ones_own(out: Path) -> None:
    stream = TokenStream(out, shuffle_seed=4, batch_size=3)
    loader = DataLoader(
        stream, batch_size=3, num_workers=2, collate_fn=partial(collate, packed=True), persistent_workers=True
    )
    batches = iter(loader)
    seen = [clip_id for _ in range(3) for clip_id in next(batches).ids]
    with pytest.raises(SettingsError, match=r"give state_dict\(samples=\.\.\.\)"):
        stream.state_dict()
    state = stream.state_dict(samples=9)
    other = TokenStream(out, shuffle_seed=4)
    other.load_state_dict(state)
    assert sorted(seen + ids(other)) == sorted(TokenCache(out).clip_ids)
    # Workers that live on see where the next epoch begins.
    stream.set_epoch(1)
    whole = [clip_id for batch in loader for clip_id in batch.ids]
    assert sorted(whole) == sorted(TokenCache(out).clip_ids)
    expected = TokenStream(out, shuffle_seed=4).loader(batch_size=3, num_workers=2)
    expected.stream.set_epoch(1)
    assert whole == [clip_id for batch in expected for clip_id in batch.ids]


def test_a_state_of_something_else_is_refused(out: Path) -> None:
    stream = TokenStream(out, shuffle_seed=4)
    state = stream.state_dict()
    with pytest.raises(SettingsError, match=r"another stream \(shuffle_seed differ\)"):
        TokenStream(out, shuffle_seed=5).load_state_dict(state)
    with pytest.raises(SettingsError, match="no state of a TokenStream"):
        stream.load_state_dict({"epoch": 1})
    write_shard(out, "f" * 16, [made_clip(0, video_id="aa" * 16)], [], RUN, ("parquet",))
    with pytest.raises(SettingsError, match=r"another stream \(clips differ\)"):
        TokenStream(out, shuffle_seed=4).load_state_dict(state)


def test_batches(out: Path) -> None:
    cache = TokenCache(out)
    clips = [cache[0], cache[14]]
    short = list(TokenStream(out, columns=("tokens", "sizes", "centers", "frame_time_ns")))[:1]
    both = [joined([*short, next(iter(cache.read([1])))]), *clips]
    padded, packed = collate(both), collate(both, packed=True)
    assert isinstance(padded, PaddedBatch)
    assert isinstance(packed, PackedBatch)
    assert padded.tokens.shape == (3, 22, 7)
    assert packed.cu_seqlens.tolist() == [0, 22, 33, 44]
    assert packed.cu_seqlens.dtype == torch.int32
    assert packed.max_seqlen == 22
    assert padded.mask.sum(1).tolist() == [22, 11, 11]
    for name in ("tokens", "sizes", "centers", "time_s"):
        assert torch.equal(getattr(padded, name)[padded.mask], getattr(packed, name))
        assert not getattr(padded, name)[~padded.mask].any()
    assert torch.equal(packed.tokens[22:33], clips[0].tokens)
    assert int(packed.sizes[22:33].sum()) == 30
    at = clips[1].centers[4, 0]
    seconds = clips[1].frame_time_ns.double() / 1e9
    expected = torch.lerp(seconds[int(at)], seconds[min(int(at) + 1, 2)], at.double() - int(at))
    assert abs(float(packed.time_s[33 + 4] - expected)) < 1e-6
    assert padded.to("cpu").ids == padded.ids == (clips[0].video_id, clips[0].clip_id, clips[1].clip_id)


def test_videos_as_samples(out: Path) -> None:
    stream = TokenStream(out, join_videos=True, shuffle_seed=0)
    videos = {video.video_id: video for video in stream}
    assert {name: len(video.clip_ids) for name, video in videos.items()} == VIDEOS
    video, view = videos["cd" * 16], TokenCache(out).videos["cd" * 16]
    assert isinstance(video, JoinedClips)
    assert torch.equal(video.tokens, torch.cat([clip.tokens for clip in view]))
    assert torch.equal(video.centers[11:22, 0], view[1].centers[:, 0] + 3)
    assert torch.equal(video.time_ns[11:22], view[1].time_ns)
    assert (video.start_ns, video.end_ns) == (0, 21_000_000_000)
    with pytest.raises(SettingsError, match="cannot be joined after"):
        joined([view[1], view[0]])


def test_mixtures_and_what_may_not_be_mixed(out: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "two", {"09" * 16: 11})
    both = ids(TokenStream([out, tmp_path / "two"], shuffle_seed=1))
    assert sorted(both) == sorted(TokenCache(out).clip_ids + TokenCache(tmp_path / "two").clip_ids)
    weighted = ids(TokenStream([out, tmp_path / "two"], shuffle_seed=1, weights=(1, 3)))
    of_two = [clip_id for clip_id in weighted if clip_id.startswith("09")]
    assert (len(weighted), len(of_two), len(set(of_two))) == (34, 25, 11)
    assert 11 <= sum(clip_id.startswith("09") for clip_id in weighted[:17]) <= 15
    other = RUN | {"fingerprint": "f" * 16, "fingerprinted": {"layer": 9}}
    write_run(tmp_path / "three", {"07" * 16: 2}, other)
    with pytest.raises(SettingsError, match=r"different fingerprints \(layer -1 and 9\).*allow_different=True"):
        TokenStream([out, tmp_path / "three"])
    assert len(ids(TokenStream([out, tmp_path / "three"], allow_different=True))) == 25


def test_what_cannot_be_streamed(out: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "empty", {})
    with pytest.raises(RunFolderError, match="holds no clips"):
        TokenStream(tmp_path / "empty")
    for options, text in (
        ({"num_ranks": 24}, "24 ranks are too many for 23 samples"),
        ({"rank": 2, "num_ranks": 2}, "rank 2 must be"),
        ({"window": 0}, "window 0"),
        ({"uneven": "round"}, "uneven 'round' is unknown"),
        ({"weights": (1, 2)}, r"one for each cache \(1\)"),
        ({"keap": 0.1}, "keap is no argument of a stream"),
        ({"columns": ("token",)}, "'token' is no array"),
    ):
        with pytest.raises(SettingsError, match=text):
            TokenStream(out, **options)
    with pytest.raises(RunFolderError, match="no merge trees"):
        TokenStream(out, keep=0.1)
    with pytest.raises(SettingsError, match=r"TokenCache\(keep="):
        TokenStream(TokenCache(out), keep=0.1)
    (clip,) = list(TokenStream(out, columns=("sizes",)))[:1]
    with pytest.raises(SettingsError, match="was read without tokens, centers"):
        collate([clip])
