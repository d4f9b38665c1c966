"""Stored trees cut at reading: as if the clip had been merged so far in the first place."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.cli import main
from pipeline import TokenCache, TokenStream
from pipeline.cache.cut import Cut, coarsened
from pipeline.cache.token_values import decoded_tokens, stored_tokens
from pipeline.errors import RunFolderError, SettingsError
from pipeline.shards.scan import read_shard
from pipeline.values import TokenSet
from pipeline.verify import clip_problems, tree_problems, verify
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe
from vtm import MergeTree, fidelity, merge_tree

GRID = (6, 4, 5)
TOKENS = 120
HALF = 2**-10
TOLD = 1e-4


def clip_with_tree(
    dtype: Any = "float32", grid: Any = GRID, dim: int = 24, noise: float = 0.3
) -> tuple[TokenSet, MergeTree, torch.Tensor]:
    """A clip as `ClipEncoder` makes them, its tree, and its source tokens."""
    total = grid[0] * grid[1] * grid[2]
    generator = torch.Generator().manual_seed(1)
    x_1NC = torch.randn(20, dim, generator=generator)[torch.randint(20, (1, total), generator=generator)]
    x_1NC = torch.nn.functional.normalize(x_1NC + noise * torch.randn(1, total, dim, generator=generator), dim=2)
    tree = merge_tree(x_1NC, grid=grid, base=0.4).ordered_by_center(grid)
    tokens, scale = stored_tokens(tree.base.mean(x_1NC)[0], dtype)
    pooled = x_1NC.mean(dim=(0, 1))
    return (
        TokenSet(
            clip_id="a-000000",
            video_id="a",
            uri="a.mp4",
            clip_index=0,
            start_ns=0,
            end_ns=6,
            frame_time_ns=np.arange(grid[0]),
            grid_thw=grid,
            tokens=tokens,
            tokens_dtype=dtype,
            tokens_scale=scale,
            sizes=tree.base.sizes[0].numpy(),
            centers=tree.base.centers(grid)[0].numpy(),
            group=tree.base.group[0].numpy().astype(np.uint16),
            pooled=(pooled / pooled.norm()).numpy(),
            fidelity=float(fidelity(x_1NC, tree.base)),
            motion_source="none",
            damaged_frames=0,
            parent=tree.parents[0].numpy().astype(np.uint16),
            loss=tree.losses[0].numpy(),
        ),
        tree,
        x_1NC,
    )


def numbers(clip: TokenSet) -> Any:
    return decoded_tokens(clip.tokens, clip.tokens_dtype, clip.tokens_scale)


@pytest.mark.parametrize("left", [1, 2, 13, 30, 47])
def test_a_cut_is_the_plan_of_the_tree(left: int) -> None:
    clip, tree, x_1NC = clip_with_tree()
    cut, plan = coarsened(clip, Cut(tokens=left)), tree.plan(num_tokens=left).ordered_by_center(GRID)
    assert clip_problems(cut) == []
    np.testing.assert_array_equal(cut.group, plan.group[0].numpy())
    np.testing.assert_array_equal(cut.sizes, plan.sizes[0].numpy())
    np.testing.assert_array_equal(cut.centers, plan.centers(GRID)[0].numpy())
    np.testing.assert_allclose(cut.tokens, plan.mean(x_1NC)[0].numpy(), rtol=0, atol=1e-5)
    assert cut.fidelity == pytest.approx(float(fidelity(x_1NC, plan)), abs=TOLD)


@pytest.mark.parametrize(
    ("dtype", "step"), [("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 1 / 254), ("int4", 1 / 15)]
)
def test_tokens_keep_their_dtype(dtype: str, step: float) -> None:
    exact = coarsened(clip_with_tree()[0], Cut(tokens=9))
    cut = coarsened(clip_with_tree(dtype)[0], Cut(tokens=9))
    assert (cut.tokens_dtype, cut.tokens.dtype) == (dtype, clip_with_tree(dtype)[0].tokens.dtype)
    largest = np.abs(exact.tokens.astype(np.float32)).max()
    assert np.abs(numbers(cut) - exact.tokens).max() <= 3 * step * largest


def test_a_cut_of_a_cut_is_the_cut() -> None:
    clip, _, _ = clip_with_tree("float16")
    for finer in (48, 40, 21, 8):
        first = coarsened(clip, Cut(tokens=finer))
        for coarser in range(1, finer + 1):
            twice, once = coarsened(first, Cut(tokens=coarser)), coarsened(clip, Cut(tokens=coarser))
            assert twice.parent is not None
            assert once.parent is not None
            np.testing.assert_array_equal(twice.group, once.group)
            np.testing.assert_array_equal(twice.parent, once.parent)
            np.testing.assert_array_equal(twice.loss, once.loss)  # type: ignore[arg-type]
            assert twice.fidelity == pytest.approx(once.fidelity, abs=1e-6)
            np.testing.assert_allclose(numbers(twice), numbers(once), rtol=0, atol=2 * HALF)


def test_the_four_ways_to_say_how_far() -> None:
    clip, _, _ = clip_with_tree()
    assert clip.loss is not None
    stored = len(clip.tokens)
    assert coarsened(clip, Cut(tokens=1000)) is clip
    assert len(coarsened(clip, Cut(keep=0.1)).tokens) == TOKENS // 10
    for wanted in (0.7, 0.85, 0.95):
        cut = coarsened(clip, Cut(fidelity=wanted))
        assert cut.fidelity >= wanted - 1e-6
        assert coarsened(clip, Cut(tokens=len(cut.tokens) - 1)).fidelity < wanted
    fifth = float(np.sort(clip.loss)[4])
    assert len(coarsened(clip, Cut(max_loss=fifth)).tokens) == stored - 5


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, "a cut is one of keep, tokens, fidelity, max_loss, got none"),
        ({"keep": 0.1, "tokens": 5}, "keep and tokens"),
        ({"keep": 0.0}, "keep 0.0 must be above 0"),
        ({"tokens": 0}, "tokens 0 must be"),
        ({"fidelity": 1.2}, "fidelity 1.2 must be"),
        ({"max_loss": -1.0}, "max_loss -1.0 must be"),
        ({"max_loss": float("nan")}, "max_loss nan must be"),
        ({"lloyd_steps": 2}, "a cut is one of keep, tokens, fidelity, max_loss, got none"),
        ({"tokens": 3, "lloyd_steps": -1}, "lloyd_steps -1 must be a whole number, 0 or more"),
    ],
)
def test_cuts_that_cannot_be(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        Cut(**asked)


@pytest.mark.parametrize("left", [1, 2, 7, 13, 30])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_lloyd_steps_keep_more(left: int, dtype: str) -> None:
    clip, _, x_1NC = clip_with_tree(dtype)
    plain, cut = coarsened(clip, Cut(tokens=left)), coarsened(clip, Cut(tokens=left, lloyd_steps=2))
    assert clip_problems(cut) == []
    assert (len(cut.tokens), cut.tokens.dtype, cut.parent, cut.loss) == (left, plain.tokens.dtype, None, None)
    assert cut.fidelity >= plain.fidelity
    unit_ND = torch.nn.functional.normalize(x_1NC[0], dim=1)
    group_N = torch.from_numpy(cut.group.astype(np.int64))
    sums_mD = torch.zeros(left, unit_ND.shape[1]).index_add_(0, group_N, unit_ND)
    measured = float(sums_mD.norm(dim=1).sum()) / len(group_N)
    assert cut.fidelity == pytest.approx(measured, abs=3e-3)
    np.testing.assert_array_equal(cut.sizes, np.bincount(cut.group, minlength=left))
    # What was one stored token stays one.
    assert len({(old, new) for old, new in zip(clip.group, cut.group, strict=True)}) == len(clip.tokens)
    again = coarsened(clip, Cut(tokens=left, lloyd_steps=2))
    np.testing.assert_array_equal(again.group, cut.group)


def test_lloyd_steps_gain_where_early_merges_were_wrong() -> None:
    clip, _, _ = clip_with_tree(noise=2.0)
    gains = [
        coarsened(clip, Cut(tokens=left, lloyd_steps=2)).fidelity - coarsened(clip, Cut(tokens=left)).fidelity
        for left in (5, 8, 12)
    ]
    assert min(gains) > 1e-3


def test_a_clip_that_comes_whole_has_no_tree_either() -> None:
    clip, _, _ = clip_with_tree()
    cut = coarsened(clip, Cut(tokens=1000, lloyd_steps=2))
    assert (cut.parent, cut.loss, cut.fidelity) == (None, None, clip.fidelity)
    np.testing.assert_array_equal(cut.tokens, clip.tokens)


def test_a_tree_that_is_none_is_found() -> None:
    clip, _, _ = clip_with_tree()
    assert clip.parent is not None
    assert clip.loss is not None
    assert tree_problems(clip) == tree_problems(replace(clip, parent=None, loss=None)) == []
    child = int(np.flatnonzero(clip.parent != np.arange(len(clip.parent)))[0])
    own = clip.parent.copy()
    own[child] = child
    high = clip.parent.copy()
    high[child] = 500
    equal = clip.loss.copy()
    equal[child] = clip.loss[clip.parent[child]]
    for changes, text in (
        ({"loss": None}, "differ in number"),
        ({"loss": clip.loss[:-1]}, "differ in number"),
        ({"parent": high}, "is no token"),
        ({"parent": own}, "one root"),
        ({"loss": equal}, "do not grow" if np.isfinite(equal[child]) else "one root"),
    ):
        assert text in tree_problems(replace(clip, **changes))[0]
    with pytest.raises(SettingsError, match="no merge tree"):
        coarsened(replace(clip, parent=None, loss=None), Cut(tokens=3))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> dict[float, Path]:
    """The same videos at two shares, in both formats."""
    folder = tmp_path_factory.mktemp("trees")
    videos = some_videos(folder)[1:]
    out = {}
    for keep in (0.4, 0.2):
        out[keep] = folder / str(keep)
        run(videos, out[keep], tiny_recipe(tiny_encoder, strategy="tree", keep=keep), format=("parquet", "webdataset"))
        assert verify(out[keep]).problems == ()
    run(videos, folder / "again", tiny_recipe(tiny_encoder, strategy="tree", keep=0.4), unit_clips=1, workers=1)
    assert rows_of(out[0.4]) == rows_of(folder / "again")
    return out


def test_a_run_read_at_other_budgets(runs: dict[float, Path]) -> None:
    for arrays in ("torch", "numpy"):
        for clip in TokenCache(runs[0.4], keep=0.2, arrays=arrays):  # type: ignore[arg-type]
            assert len(clip.tokens) == len(clip.sizes) == len(clip.centers) == -(-len(clip.group) // 5)
            assert int(clip.sizes.sum()) == len(clip.group)
            assert len(clip.unmerged()) == len(clip.group)
    whole = TokenCache(runs[0.4])
    for cut in (TokenCache(runs[0.4], fidelity=0.9), TokenCache(runs[0.4], max_loss=0.5)):
        assert sum(len(clip.tokens) for clip in cut) < sum(len(clip.tokens) for clip in whole)
    assert all(len(clip.tokens) == 5 for clip in TokenCache(runs[0.4], tokens=5).stream())
    assert min(clip.fidelity for clip in TokenCache(runs[0.4], fidelity=0.8)) >= 0.8 - 1e-6


def test_lloyd_steps_of_every_reader(runs: dict[float, Path], tmp_path: Path) -> None:
    plain, better = TokenCache(runs[0.4], tokens=5), TokenCache(runs[0.4], tokens=5, lloyd_steps=2)
    gains = [new.fidelity - old.fidelity for old, new in zip(plain, better, strict=True)]
    assert min(gains) >= 0
    assert max(gains) > 0
    streamed = {clip.clip_id: clip for clip in TokenStream(runs[0.4], tokens=5, lloyd_steps=2, shuffle_seed=None)}
    for clip in better:
        torch.testing.assert_close(streamed[clip.clip_id].tokens, clip.tokens, rtol=0, atol=0)
    with pytest.raises(SettingsError, match="lloyd_steps 2 needs a budget to regroup around: give one of keep, tokens"):
        TokenCache(runs[0.4], lloyd_steps=2)
    command = ["export", str(runs[0.4]), "--to", "npy", "--tokens-per-clip", "5", "--lloyd", "2"]
    assert main([*command, "--out", str(tmp_path / "npy")]) == 0
    about = json.loads((tmp_path / "npy" / "export.json").read_text())
    assert about["budget"] == {"tokens": 5, "lloyd_steps": 2}


def test_a_report_shows_a_cut(runs: dict[float, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(runs[0.4]), "--tokens-per-clip", "5", "--out", str(page)]) == 0
    clips = len(TokenCache(runs[0.4]))
    text = page.read_text(encoding="utf-8")
    assert re.search(rf"\b{5 * clips}<[^>]*>(<[^>]*>)*merged tokens", text)
    assert main(["report", str(runs[0.4]), "--keep", "0.9", "--out", str(page)]) == 2
    assert "keep 0.9 is more than the 0.4" in capsys.readouterr().err


def test_both_formats_hold_the_tree(runs: dict[float, Path]) -> None:
    for path in sorted((runs[0.4] / "webdataset").glob("*.tar")):
        for clip, other in zip(
            read_shard(path.parents[1], f"webdataset/{path.name}"),
            read_shard(path.parents[1], f"shards/{path.stem}.parquet"),
            strict=True,
        ):
            assert clip.parent is not None
            assert other.parent is not None
            np.testing.assert_array_equal(clip.parent, other.parent)
            np.testing.assert_array_equal(clip.loss, other.loss)  # type: ignore[arg-type]
            assert clip.parent.dtype == clip.group.dtype


def test_what_a_run_cannot_give(runs: dict[float, Path], tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"keep 0\.5 is more than the 0\.4"):
        TokenCache(runs[0.4], keep=0.5)
    with pytest.raises(SettingsError, match="keep and tokens"):
        TokenCache(runs[0.4], keep=0.1, tokens=4)
    run(some_videos(tmp_path)[2:], tmp_path / "out", tiny_recipe(tiny_encoder))
    assert all(clip.parent is None and clip.loss is None for clip in TokenCache(tmp_path / "out"))
    with pytest.raises(RunFolderError, match="no merge trees"):
        TokenCache(tmp_path / "out", keep=0.1)


def test_a_fidelity_is_kept_by_every_clip(tiny_encoder: Path, tmp_path: Path) -> None:
    videos = some_videos(tmp_path)
    for wanted in (0.9, 0.99):
        out = tmp_path / str(wanted)
        run(videos, out, tiny_recipe(tiny_encoder, strategy="tree", keep=None, fidelity=wanted))
        assert verify(out).problems == ()
        assert min(clip.fidelity for clip in TokenCache(out)) > wanted - 2e-3


@pytest.mark.parametrize(("weights", "encoder_keep"), [("saliency", 1.0), ("saliency", 0.6), ("motion", 1.0)])
def test_weights_are_stored_and_cut_by(weights: str, encoder_keep: float, tiny_encoder: Path, tmp_path: Path) -> None:
    out, videos = tmp_path / "out", some_videos(tmp_path)[:1]
    settings: dict[str, Any] = {"strategy": "tree", "weights": weights, "encoder_keep": encoder_keep}
    run(videos, out, tiny_recipe(tiny_encoder, keep=0.4, **settings), format=("parquet", "webdataset"))
    assert verify(out).problems == ()
    uneven = 0
    for path in sorted((out / "webdataset").glob("*.tar")):
        for clip, other in zip(
            read_shard(path.parents[1], f"webdataset/{path.name}"),
            read_shard(path.parents[1], f"shards/{path.stem}.parquet"),
            strict=True,
        ):
            assert clip.weights is not None
            np.testing.assert_array_equal(clip.weights, other.weights)  # type: ignore[arg-type]
            assert float(clip.weights.sum()) == pytest.approx(len(clip.group), rel=1e-4)
            uneven += int(not np.allclose(clip.weights, clip.sizes, atol=1e-3))
            one = coarsened(clip, Cut(tokens=1))
            mean = (numbers(clip) * clip.weights[:, None]).sum(axis=0) / clip.weights.sum()
            np.testing.assert_allclose(numbers(one)[0], mean, rtol=0, atol=4e-3)
            assert one.weights is not None
            assert float(one.weights[0]) == pytest.approx(len(clip.group), rel=1e-4)
    assert uneven > 0


def test_tokens_merged_inside_the_encoder_count_as_their_patches(tiny_encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(some_videos(tmp_path)[1:], out, tiny_recipe(tiny_encoder, strategy="tree", keep=0.4, encoder_keep=0.6))
    assert verify(out).problems == ()
    for clip, cut in zip(TokenCache(out), TokenCache(out, keep=0.1), strict=True):
        assert len(clip.tokens) == -(-len(clip.group) * 2 // 5)
        assert len(cut.tokens) == -(-len(cut.group) // 10)
        assert int(cut.sizes.sum()) == len(cut.group)
