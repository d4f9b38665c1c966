"""Every way to merge, from video to shard."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import TokenCache
from pipeline.encode.describe import describe_encoder as describe_for_run
from pipeline.encode.devices import Device
from pipeline.errors import SettingsError
from pipeline.verify import verify
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe
from vtm.encoders import describe_encoder
from vtm.network import (
    NetworkConfig,
    Origin,
    SaliencyScorer,
    ScorerConfig,
    VideoTokenMerging,
    load_network,
    load_scorer,
    save_model,
)

DIM = 24


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))[1:]


@pytest.mark.parametrize("strategy", ["center", "boundary", "motion", "saliency", "coverage"])
def test_strategies(strategy: str, videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_encoder, strategy=strategy)
    run(videos, tmp_path / "a", recipe)
    assert verify(tmp_path / "a").problems == ()
    for clip in TokenCache(tmp_path / "a"):
        sources = int(np.prod(clip.grid_thw))
        assert len(clip.tokens) == -(-sources // 5)
        assert clip.motion_source == ("codec" if strategy == "motion" else "none")
    run(videos, tmp_path / "b", recipe, unit_clips=1, workers=1)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"keep": None, "tokens_per_clip": 7}, lambda n: 7),
        ({"keep": None, "partition_factor": 6, "merge_share": 0.8}, lambda n: n - int(0.8 * (n - -(-n // 6)))),
        ({"keep": 1.0}, lambda n: n),
    ],
)
def test_how_far(settings: dict[str, Any], left: Any, videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "out", tiny_recipe(tiny_encoder, **settings))
    assert verify(tmp_path / "out").problems == ()
    for clip in TokenCache(tmp_path / "out"):
        assert len(clip.tokens) == left(int(np.prod(clip.grid_thw)))


@pytest.mark.parametrize("strategy", ["none", "naive", "coverage"])
def test_merging_inside_the_encoder_too(strategy: str, videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    keep = None if strategy == "none" else 0.2
    run(videos, tmp_path / "out", tiny_recipe(tiny_encoder, strategy=strategy, keep=keep, encoder_keep=0.6))
    assert verify(tmp_path / "out").problems == ()
    for clip in TokenCache(tmp_path / "out"):
        frames, rows, columns = clip.grid_thw
        inside = frames * round(0.6 * rows * columns)
        share = -(-frames * rows * columns // 5)
        assert len(clip.tokens) == (inside if strategy == "none" else share)
        assert int(clip.sizes.sum()) == frames * rows * columns


def trained(folder: Path, kind: str, width: int = DIM, strategy: Any = "learnable") -> Path:
    torch.manual_seed(5)
    if kind == "scorer":
        save_model(folder, SaliencyScorer(ScorerConfig(in_width=width)))
    else:
        config = NetworkConfig(
            in_width=width,
            outputs=3,
            strategy=strategy,
            widths=(16, 10),
            windows_frames=(1, 3),
            partition_factor=3,
            merge_share=1.0,
            heads=2,
            head_width=4,
        )
        save_model(folder, VideoTokenMerging(config))
    return folder


def test_a_trained_scorer(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_encoder, strategy="learnable", scorer=str(trained(tmp_path / "scorer", "scorer")))
    run(videos, tmp_path / "out", recipe)
    assert verify(tmp_path / "out").problems == ()
    assert {clip.tokens.shape[1] for clip in TokenCache(tmp_path / "out")} == {DIM}


@pytest.mark.parametrize("strategy", ["learnable", "motion", "weighted"])
def test_a_trained_network_writes_its_own_tokens(
    strategy: str, videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = trained(tmp_path / "network", "network", strategy=strategy)
    with pytest.raises(SettingsError, match="leave out --keep"):
        run(videos, tmp_path / "out", tiny_recipe(tiny_encoder, strategy="learnable", keep=0.5, scorer=str(folder)))
    recipe = tiny_recipe(tiny_encoder, strategy="learnable", keep=None, scorer=str(folder))
    run(videos, tmp_path / "out", recipe)
    run(videos, tmp_path / "again", recipe, unit_clips=1)
    assert verify(tmp_path / "out").problems == ()
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "again")
    for clip in TokenCache(tmp_path / "out"):
        assert clip.tokens.shape[1] == 10
        assert clip.motion_source == ("tokens" if strategy == "motion" else "none")
        assert int(clip.sizes.sum()) == int(np.prod(clip.grid_thw))


def test_learnt_weights_say_where_the_tree_spends_tokens(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = trained(tmp_path / "network", "network", strategy="weighted")
    recipe = tiny_recipe(tiny_encoder, strategy="tree", weights="learnt", scorer=str(folder), dtype="float32")
    run(videos, tmp_path / "out", recipe)
    assert verify(tmp_path / "out").problems == ()
    run(videos, tmp_path / "all", tiny_recipe(tiny_encoder, strategy="none", keep=None, dtype="float32"))
    scorer = load_scorer(folder)
    for clip, whole in zip(TokenCache(tmp_path / "out"), TokenCache(tmp_path / "all"), strict=True):
        with torch.inference_mode():
            weights_N = scorer.weights(whole.unmerged()[None], whole.grid_thw)[0].double()
        group_N = clip.group.flatten().long()
        expected_M = torch.zeros(len(clip.tokens), dtype=torch.float64).index_add_(0, group_N, weights_N)
        torch.testing.assert_close(clip.weights.double(), expected_M / weights_N.mean(), rtol=1e-3, atol=1e-3)
        assert clip.tokens.shape[1] == DIM
    no_scores = trained(tmp_path / "naive", "network", strategy="naive")
    with pytest.raises(SettingsError, match="only a learnable or weighted network has a scorer"):
        run(videos, tmp_path / "other", dataclasses.replace(recipe, scorer=str(no_scores)))


def test_a_model_for_other_tokens_is_refused(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "scorer", "scorer", width=DIM + 1)
    with pytest.raises(SettingsError, match="trained on tokens of 25 channels, the encoder's have 24"):
        run(videos, tmp_path / "out", tiny_recipe(tiny_encoder, strategy="learnable", scorer=str(folder)))
    with pytest.raises(SettingsError, match="--scorer"):
        run(videos, tmp_path / "out", tiny_recipe(tiny_encoder, strategy="learnable", scorer=str(tmp_path)))


@pytest.mark.parametrize(
    ("learnt", "message"),
    [
        ({"weights_sha256": "00" * 32}, "of encoder tiny, these are of encoder"),
        ({"layer": 1}, "of layer 1, these are of layer -1"),
        ({"fps": "25"}, "of fps 25, these are of fps 2"),
    ],
)
def test_a_network_of_other_tokens_is_refused(
    learnt: dict[str, Any], message: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = trained(tmp_path / "network", "network")
    own = describe_encoder(tiny_encoder)
    origin = Origin(encoder="tiny", weights_sha256=own.weights_sha256, layer=-1, fps="2")
    recipe = tiny_recipe(tiny_encoder, strategy="learnable", keep=None, scorer=str(folder))
    save_model(folder, load_network(folder), origin)
    assert describe_for_run(recipe, Device(kind="cpu"))[0].vtm_decides_count
    save_model(folder, load_network(folder), dataclasses.replace(origin, **learnt))
    with pytest.raises(SettingsError, match=message):
        describe_for_run(recipe, Device(kind="cpu"))
