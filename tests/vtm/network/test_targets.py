from __future__ import annotations

import math

import pytest
import torch

from vtm import Grid, merge_plan
from vtm.network.targets import area_cue, choose_targets
from vtm.plan import MergePlan, identity_plan
from vtm.sampling import gumbel_noise

BLANK = torch.zeros(2, 23)


@pytest.mark.parametrize("strategy", ["naive", "center", "boundary", "motion", "learnable"])
@pytest.mark.parametrize("partition_factor", [1, 2, 5, 23, 40])
def test_counts_depend_on_the_shape_alone(strategy: str, partition_factor: int) -> None:
    for inside in (0, 1, 11, 22, 23):
        score = (torch.arange(23) < inside).float().expand(2, -1)
        targets = choose_targets(strategy, (2, 23), partition_factor, score, BLANK)
        assert targets.shape == (2, math.ceil(23 / partition_factor))
        assert (targets.diff(dim=1) > 0).all()


@pytest.mark.parametrize("area", ["center", "boundary"])
@pytest.mark.parametrize("grid", [(2, 16, 16), (3, 7, 7)])
def test_unmerged_tokens_have_the_targets_of_the_strategy_without_a_network(area: str, grid: Grid) -> None:
    tokens = math.prod(grid)
    cue = area_cue(area, identity_plan(1, tokens), grid)
    targets = choose_targets(area, (1, tokens), 6, cue, cue)
    keys = torch.randn(1, tokens, 4)
    assert torch.equal(targets, merge_plan(keys, strategy=area, grid=grid, partition_factor=6).targets)


def test_naive_targets_are_every_gamma_th() -> None:
    targets = choose_targets("naive", (2, 23), 5, BLANK, BLANK)
    assert targets.tolist() == [[0, 5, 10, 15, 20]] * 2


def test_area_is_told_by_the_targets_of_a_merge() -> None:
    plan = identity_plan(1, 2 * 5 * 4)
    cue = area_cue("center", plan, (2, 5, 4))
    one_group = MergePlan(torch.zeros_like(plan.group), 1, torch.tensor([[5]]))
    assert area_cue("center", one_group, (2, 5, 4)).tolist() == [[cue[0, 5].item()]]


def test_one_draw_follows_the_softmax() -> None:
    """Chi-square over 20,000 draws of one of five targets; 18.47 is exceeded once in a thousand at four degrees."""
    score = torch.tensor([0.9, -0.4, 0.0, -0.9, 0.3]).expand(20_000, -1)
    noise = gumbel_noise([1], 100_000, score.device).view(20_000, 5)
    drawn = choose_targets("learnable", (20_000, 5), 5, score, noise).flatten().bincount(minlength=5)
    expected = score[0].double().softmax(dim=0) * 20_000
    assert ((drawn - expected) ** 2 / expected).sum() < 18.47
