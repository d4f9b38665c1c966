from __future__ import annotations

import math

import pytest
import torch

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


def test_half_of_the_targets_lie_in_the_centre() -> None:
    """16 x 16 patches, γ = 8: 2 frames give 64 targets, 32 of them in the quarter, at factors 4 and 12."""
    cue = area_cue("center", identity_plan(1, 512), (2, 16, 16))
    assert cue.sum() == 128
    (targets,) = choose_targets("center", (1, 512), 8, cue, cue)
    for inside in (True, False):
        members = torch.nonzero(cue[0] == float(inside)).flatten()
        chosen = targets[cue[0, targets] == float(inside)]
        assert torch.equal(chosen, members[:: len(members) // 32])


def test_half_of_the_targets_lie_on_the_boundary() -> None:
    """A border one patch wide is 60 of 256 patches; half of 86 targets is 43."""
    cue = area_cue("boundary", identity_plan(1, 512), (2, 16, 16))
    assert cue.sum() == 120
    (targets,) = choose_targets("boundary", (1, 512), 6, cue, cue)
    assert cue[0, targets].sum() == 43


def test_naive_targets_are_every_gamma_th() -> None:
    targets = choose_targets("naive", (2, 23), 5, BLANK, BLANK)
    assert targets.tolist() == [[0, 5, 10, 15, 20]] * 2


def test_area_is_told_by_the_targets_of_a_merge() -> None:
    plan = identity_plan(1, 2 * 5 * 4)
    rows = area_cue("center", plan, (2, 5, 4)).view(2, 5, 4)
    assert torch.nonzero(rows[0]).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert torch.equal(rows[0], rows[1])
    one_group = MergePlan(torch.zeros_like(plan.group), 1, torch.tensor([[5]]))
    assert area_cue("center", one_group, (2, 5, 4)).tolist() == [[1.0]]


def test_one_draw_follows_the_softmax() -> None:
    """Chi-square over 20,000 draws of one of five targets; 18.47 is exceeded once in a thousand at four degrees."""
    score = torch.tensor([0.9, -0.4, 0.0, -0.9, 0.3]).expand(20_000, -1)
    noise = gumbel_noise([1], 100_000, score.device).view(20_000, 5)
    drawn = choose_targets("learnable", (20_000, 5), 5, score, noise).flatten().bincount(minlength=5)
    expected = score[0].double().softmax(dim=0) * 20_000
    assert ((drawn - expected) ** 2 / expected).sum() < 18.47
