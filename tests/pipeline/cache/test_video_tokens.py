"""Tokens of whole videos: from the cache alone, within bounds, and at any smaller number."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.cli import main
from pipeline import TokenCache
from pipeline.cache.cut import Cut
from pipeline.cache.token_values import decoded_tokens
from pipeline.cache.video_tokens import coarsened_video, merge_video
from pipeline.errors import RunFolderError, SettingsError
from pipeline.shards.video_table import name_of, read_video
from pipeline.values import TokenSet
from tests.pipeline.cache.test_cut import clip_with_tree
from tests.pipeline.runs import run, some_videos, tiny_recipe

WANTED = 20
TOLD = 0.01


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    run(some_videos(folder), folder / "out", tiny_recipe(tiny_encoder, strategy="tree", keep=0.4))
    assert main(["merge", str(folder / "out"), "--tokens-per-video", str(WANTED)]) == 0
    return folder / "out"


def test_every_video_has_tokens_and_every_clip_token_one_of_them(out: Path) -> None:
    cache = TokenCache(out)
    assert len(cache.video_positions) == 3
    for video_id, positions in cache.video_positions.items():
        video = cache.video(video_id)
        clips = [cache[position] for position in positions]
        assert [clip.clip_index for clip in clips] == list(range(len(clips)))
        assert len(video.tokens) == min(WANTED, sum(len(clip.tokens) for clip in clips))
        assert int(video.sizes.sum()) == video.num_sources == sum(len(clip.group) for clip in clips)
        assert bool((video.time_ns.diff() >= 0).all())
        sizes, total = torch.zeros_like(video.sizes), torch.zeros(len(video.tokens), 24)
        for clip in clips:
            at_M = video.clip_maps[clip.clip_id]
            sizes.index_add_(0, at_M, clip.sizes.long())
            total.index_add_(0, at_M, clip.tokens.float() * clip.sizes[:, None])
        assert torch.equal(sizes, video.sizes)
        torch.testing.assert_close(video.tokens.float(), total / sizes[:, None], rtol=0, atol=2e-3)
        assert 0 <= float(video.centers[:, 0].min()) <= float(video.centers[:, 0].max()) < 3 * len(clips)


def test_the_fidelity_told_is_near_the_one_between_clips_and_video(out: Path) -> None:
    cache = TokenCache(out)
    for video_id, positions in cache.video_positions.items():
        video = cache.video(video_id)
        told = 0.0
        for position in positions:
            clip = cache[position]
            stands_MC = video.tokens[video.clip_maps[clip.clip_id]].float()
            cosine_M = torch.nn.functional.cosine_similarity(clip.tokens.float(), stands_MC, dim=1)
            told += float((cosine_M * clip.sizes).sum()) * clip.fidelity
        assert video.fidelity == pytest.approx(told / video.num_sources, abs=TOLD)


def test_any_smaller_number(out: Path) -> None:
    cache = TokenCache(out, arrays="numpy")
    video_id = max(cache.video_positions, key=lambda name: len(cache.video_positions[name]))
    whole = cache.video(video_id)
    for left in (1, 7, 19):
        video = cache.video(video_id, tokens=left)
        assert len(video.tokens) == len(video.parent) == left
        assert video.sizes.sum() == whole.sizes.sum()
        assert video.fidelity <= whole.fidelity
        assert np.isinf(video.loss).sum() == 1
        mean = (video.tokens.astype(np.float32) * video.sizes[:, None]).sum(axis=0)
        np.testing.assert_allclose(
            mean, (whole.tokens.astype(np.float32) * whole.sizes[:, None]).sum(axis=0), rtol=0.01, atol=0.5
        )
        again = coarsened_video(coarsened_video(read_video(out, video_id), Cut(tokens=19)), Cut(tokens=left))
        np.testing.assert_array_equal(again.map, np.concatenate(list(video.clip_maps.values())))
    assert cache.video(video_id, fidelity=whole.fidelity - 0.02).fidelity >= whole.fidelity - 0.021
    with pytest.raises(SettingsError, match="tokens 0"):
        cache.video(video_id, tokens=0)


def test_merging_again_makes_what_is_not_there(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video_id = next(iter(TokenCache(out).video_positions))
    before = (out / name_of(video_id)).read_bytes()
    (out / name_of(video_id)).unlink()
    assert main(["merge", str(out), "--tokens-per-video", str(WANTED), "--json"]) == 0
    rows = {row["video_id"]: row for row in json.loads(capsys.readouterr().out)["videos"]}
    assert [name for name, row in rows.items() if row["made"]] == [video_id]
    assert (out / name_of(video_id)).read_bytes() == before
    assert main(["merge", str(out), "--tokens-per-video", "9", "--lloyd", "2", "--video", video_id]) == 0
    assert len(TokenCache(out).video(video_id).tokens) <= 9
    (out / name_of(video_id)).write_bytes(before)
    assert main(["merge", str(out), "--video", "ff"]) == 2
    assert "--video ff is not a video with clips in" in capsys.readouterr().err


def test_lloyd_steps_bring_tokens_nearer() -> None:
    clips = made_clips(6)
    told = [merge_video(lambda: iter(clips), 12, lloyd_steps=steps).fidelity for steps in (0, 2)]
    assert told[1] > told[0]


def test_what_is_not_there_is_said(out: Path) -> None:
    with pytest.raises(RunFolderError, match="vtm merge"):
        TokenCache(out).video("nothing")
    with pytest.raises(SettingsError, match="without clips"):
        merge_video(lambda: iter(()), 5)
    with pytest.raises(SettingsError, match="1 or more"):
        merge_video(lambda: iter(()), 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "float32"])
def test_other_dtypes(dtype: str) -> None:
    clips = made_clips(3, dtype)
    video = merge_video(lambda: iter(clips), 15)
    exact = merge_video(lambda: iter(made_clips(3)), 15)
    values = decoded_tokens(video.tokens, video.tokens_dtype, video.tokens_scale)
    assert video.tokens_dtype == dtype
    assert video.fidelity == pytest.approx(exact.fidelity, abs=0.01)
    assert np.isfinite(values).all()


def made_clips(count: int, dtype: Any = "float32") -> list[TokenSet]:
    clip, _, _ = clip_with_tree(dtype)
    made = []
    for index in range(count):
        turned = np.roll(clip.tokens, index, axis=1)
        times = clip.frame_time_ns + 6 * index
        made.append(replace(clip, clip_id=f"a-{index:06d}", clip_index=index, tokens=turned, frame_time_ns=times))
    return made


def test_memory_does_not_grow_with_the_video() -> None:
    """Four times the clips take no more than the map's bytes more."""
    clips = made_clips(12)

    def long(count: int) -> Iterator[TokenSet]:
        for index in range(count):
            yield replace(clips[index % 12], clip_id=f"a-{index:06d}", clip_index=index)

    peaks = {}
    for count in (24, 96):
        tracemalloc.start()
        video = merge_video(lambda count=count: long(count), 64)  # type: ignore[misc]
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(video.tokens) == 64
        assert video.num_sources == 120 * count
    stored = 72 * len(clips[0].tokens)
    assert peaks[96] - peaks[24] < 40 * stored
