"""The bench's rows on a made video and a small encoder, and its peers against what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.bench import fidelity as bench_fidelity
from jobs.bench.fidelity import PLANNERS, box_plan, pool_boxes
from jobs.bench.low_cosine import low_cosine
from jobs.bench.merge import blocked_tome_rounds
from jobs.cli import main
from tests.jobs.bench.command import bench
from tests.synthetic import make_video
from vtm import fidelity, token_cosines

GRID = (5, 4, 7)
TOKENS = 140
KEEP = 0.2
ROUNDING = 1e-12


def clip(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_1NC = torch.randn(1, TOKENS, 11, generator=generator, dtype=torch.float64)
    return x_1NC, x_1NC[..., :6] + 0.1 * torch.randn(1, TOKENS, 6, generator=generator, dtype=torch.float64)


def test_rows_are_every_merge_by_video_and_share(
    tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video(tmp_path / "short.mp4", frames=101, fps=25, gop=20)
    fixed = ["--encoder", str(tiny_encoder), "--layer", "2", "--fps", "2", "--clip-frames", "3", "--clips", "2"]
    rows = bench(capsys, "fidelity", str(video), *fixed, "--keep", "0.2", "0.5", "--device", "cpu")["rows"]
    names = ["pool", "random", "naive", "center", "boundary", "paper rounds", "ToMe rounds"]
    names += ["coverage by keys", "coverage", "tree", "k-means"]
    assert [(row["keep"], row["name"]) for row in rows] == [(keep, name) for keep in (0.2, 0.5) for name in names]
    for row in rows:
        assert (row["video"], row["clips"]) == ("short.mp4", 2)
        assert row["tokens_left"] == {0.2: 9, 0.5: 23}[row["keep"]] or row["name"] == "pool"
    for few, many in zip(rows[: len(names)], rows[len(names) :], strict=True):
        assert few["mean_cosine"] < many["mean_cosine"], few["name"]


@pytest.mark.parametrize("name", ["fidelity", "tree"])
def test_a_video_without_a_full_clip_is_refused(
    name: str, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video(tmp_path / "short.mp4", frames=25, fps=25)
    assert main(["bench", name, str(video), "--encoder", str(tiny_encoder), "--layer", "2", "--device", "cpu"]) == 2
    assert "no video holds a full clip of 60 frames at 1 a second" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "rank"), [(3, 1), (30, 2), (40, 2), (100, 5)])
def test_the_low_cosine_is_that_of_one_token_in_twenty(count: int, rank: int) -> None:
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0)) + 1
    assert low_cosine(shuffled.double() / 128) == rank / 128


@pytest.mark.parametrize("name", PLANNERS)
def test_every_merge_leaves_the_share(name: str) -> None:
    x_1NC, keys_1ND = clip()
    plan = PLANNERS[name](x_1NC, keys_1ND, GRID, KEEP, 3)
    slack = bench_fidelity.POOL_SLACK if name == "pool" else 0
    assert TOKENS * KEEP / (1 + slack) <= plan.num_groups <= TOKENS * KEEP * (1 + slack)
    assert int(plan.sizes.sum()) == TOKENS
    assert torch.equal(PLANNERS[name](x_1NC, keys_1ND, GRID, KEEP, 3).group, plan.group)


def test_a_box_is_average_pooling() -> None:
    x_1NC, _ = clip()
    plan = box_plan(GRID, (2, 3, 3), x_1NC.device)
    pooled = torch.nn.functional.avg_pool3d(
        x_1NC.mT.unflatten(2, GRID), (2, 3, 3), ceil_mode=True, count_include_pad=False
    )
    torch.testing.assert_close(plan.mean(x_1NC), pooled.flatten(2).mT, rtol=0, atol=ROUNDING)
    assert torch.equal(plan.group.gather(1, plan.targets), torch.arange(3 * 2 * 3)[None])


def test_pooling_takes_the_box_that_suits_the_clip() -> None:
    frame_PC = torch.randn(28, 11, generator=torch.Generator().manual_seed(5))
    still_1NC = frame_PC.repeat(5, 1)[None]
    plan = PLANNERS["pool"](still_1NC, still_1NC, GRID, KEEP, 0)
    assert plan.num_groups == 28
    assert float(fidelity(still_1NC, plan)) == pytest.approx(1)


def test_boxes_are_those_near_the_share_or_the_nearest() -> None:
    for box in pool_boxes((60, 16, 16), 0.1):
        assert box[1] == box[2]
        assert 1536 / 1.26 < -(-60 // box[0]) * (-(-16 // box[1])) ** 2 < 1536 * 1.26
    assert pool_boxes((3, 5, 7), 0.001) == [(3, 5, 5)]


def test_tome_rounds_merge_as_they_do_token_by_token() -> None:
    x_1NC, _ = clip()
    plan = PLANNERS["ToMe rounds"](x_1NC, x_1NC, GRID, KEEP, 0)
    torch.testing.assert_close(plan.mean(x_1NC), blocked_tome_rounds(x_1NC, KEEP), rtol=0, atol=ROUNDING)


def test_paper_rounds_go_by_gamma_6_and_r_of_four_fifths() -> None:
    x_1NC, keys_1ND = clip()
    plan = PLANNERS["paper rounds"](x_1NC, keys_1ND, GRID, 0.4, 0)
    first_targets = torch.arange(0, TOKENS, 6)
    assert plan.num_groups == 56
    # 116 sources, 92 of which merge in the one round that 0.4 needs not even all of.
    assert set(first_targets.tolist()) <= set(plan.targets[0].tolist())


def test_k_means_stands_nearer_than_where_it_starts() -> None:
    x_1NC, keys_1ND = clip()
    means = {
        name: token_cosines(x_1NC, PLANNERS[name](x_1NC, keys_1ND, GRID, KEEP, 0)).mean()
        for name in ("naive", "k-means")
    }
    assert means["k-means"] > means["naive"] + 0.02
