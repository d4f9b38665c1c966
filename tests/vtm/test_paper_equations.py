"""Every strategy of the paper against the literal oracle, at odd sizes."""

import pytest
import torch

from tests.vtm.merge_oracle import groups_of, literal_targets, merge_literally
from vtm import merge_plan, plan_from_targets
from vtm.budget import num_merged
from vtm.sampling import gumbel_noise

GRID = (3, 5, 7)
TOKENS = 105
FLOAT64_SUM = 1e-12
FLOAT32_SUM = 1e-6


def clip(batch=2, width=11, channels=13, dtype=torch.float64, tokens=TOKENS):
    generator = torch.Generator().manual_seed(7)
    keys_BND = torch.randn(batch, tokens, width, generator=generator, dtype=torch.float64)
    x_BNC = torch.randn(batch, tokens, channels, generator=generator, dtype=torch.float64)
    return keys_BND.to(dtype), x_BNC.to(dtype)


def assert_equals_oracle(plan, keys_BND, x_BNC, tolerance):
    mean_BMC = plan.mean(x_BNC)
    for b in range(len(keys_BND)):
        targets = plan.targets[b].tolist()
        groups, means_MC = merge_literally(keys_BND[b], x_BNC[b], targets, TOKENS - len(targets))
        assert groups_of(plan.group[b]) == groups
        torch.testing.assert_close(mean_BMC[b].double(), means_MC, rtol=0, atol=tolerance)


@pytest.mark.parametrize("strategy", ["naive", "center", "boundary", "motion", "saliency", "learnable"])
def test_whole_merge_equals_equations_3_and_4(strategy):
    keys_BND, x_BNC = clip()
    scores_BN = torch.randn(2, TOKENS, generator=torch.Generator().manual_seed(1))
    plan = merge_plan(
        keys_BND, strategy=strategy, grid=GRID, partition_factor=6, motion=scores_BN, saliency=scores_BN, seed=5
    )
    assert plan.num_groups == 18
    assert_equals_oracle(plan, keys_BND, x_BNC, FLOAT64_SUM)


@pytest.mark.parametrize("merge_share", [0.8, 0.5, 0.29, 0.0])
@pytest.mark.parametrize("partition_factor", [2, 6, 10])
def test_limit_r_equals_equation_5(merge_share, partition_factor):
    keys_BND, x_BNC = clip()
    plan = merge_plan(keys_BND, grid=GRID, partition_factor=partition_factor, merge_share=merge_share)
    targets = list(range(0, TOKENS, partition_factor))
    merged = num_merged(TOKENS - len(targets), merge_share)
    assert plan.num_groups == TOKENS - merged
    for b in range(2):
        groups, means_MC = merge_literally(keys_BND[b], x_BNC[b], targets, merged)
        assert groups_of(plan.group[b]) == groups
        torch.testing.assert_close(plan.mean(x_BNC)[b], means_MC, rtol=0, atol=FLOAT64_SUM)


@pytest.mark.parametrize("strategy", ["center", "boundary", "motion", "saliency", "learnable"])
def test_limit_r_leaves_every_strategy_its_targets(strategy):
    keys_BND, x_BNC = clip()
    scores_BN = torch.randn(2, TOKENS, generator=torch.Generator().manual_seed(1))
    settings = {"strategy": strategy, "grid": GRID, "partition_factor": 7, "motion": scores_BN, "saliency": scores_BN}
    target_BM = merge_plan(keys_BND, seed=5, **settings).targets
    plan = merge_plan(keys_BND, seed=5, merge_share=0.8, **settings)
    for b in range(2):
        groups, means_MC = merge_literally(keys_BND[b], x_BNC[b], target_BM[b].tolist(), 72)
        assert groups_of(plan.group[b]) == groups
        torch.testing.assert_close(plan.mean(x_BNC)[b], means_MC, rtol=0, atol=FLOAT64_SUM)


def test_float32_decides_as_float64_where_no_pair_is_close():
    keys_BND, x_BNC = clip(dtype=torch.float32)
    plan = merge_plan(keys_BND, grid=GRID, partition_factor=5)
    assert_equals_oracle(plan, keys_BND, x_BNC, FLOAT32_SUM)


def test_naive_targets_are_equation_1():
    keys_BND, _ = clip()
    plan = merge_plan(keys_BND, grid=GRID, partition_factor=6)
    assert plan.targets[0].tolist() == [i for i in range(TOKENS) if i % 6 == 0]


@pytest.mark.parametrize("partition_factor", [2, 6, 10])
def test_center_targets_are_the_factors_of_section_3_3(partition_factor):
    """One of γ/2 tokens of the central H/2 x W/2 and one of 3γ/2 of the others: half of the targets each."""
    total = 60 * 256
    plan = merge_plan(torch.randn(1, total, 3), strategy="center", grid=(60, 16, 16), partition_factor=partition_factor)
    central = sum(4 <= i // 16 % 16 < 12 and 4 <= i % 16 < 12 for i in plan.targets[0].tolist())
    assert plan.num_groups == total // partition_factor
    assert central == pytest.approx(plan.num_groups / 2, rel=0.01)


@pytest.mark.parametrize("strategy", ["center", "boundary"])
@pytest.mark.parametrize("partition_factor", [3, 5, 7])
@pytest.mark.parametrize("grid", [(3, 5, 7), (5, 7, 11), (4, 7, 7), (3, 16, 16)])
def test_center_and_boundary_are_the_literal_densities(strategy, partition_factor, grid):
    total = grid[0] * grid[1] * grid[2]
    plan = merge_plan(torch.randn(1, total, 3), strategy=strategy, grid=grid, partition_factor=partition_factor)
    assert plan.targets[0].tolist() == literal_targets(strategy, grid, plan.num_groups)


def test_equals_are_matched_with_the_first_target_and_merged_in_order():
    keys_BND = torch.ones(1, 9, 4)
    plan = plan_from_targets(keys_BND, torch.tensor([[2, 5]]), merge_share=0.5)
    # Sources 0, 1, 3, 4, 6, 7, 8; R = 3 of 7: the first three join the first target, the others stay alone.
    assert plan.targets.tolist() == [[2, 4, 5, 6, 7, 8]]
    assert plan.group.tolist() == [[0, 0, 0, 0, 1, 2, 3, 4, 5]]


def test_motion_targets_are_the_gumbel_top_k():
    keys_BND, _ = clip()
    motion_BTHW = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(3)) * 4
    plan = merge_plan(keys_BND, strategy="motion", grid=GRID, num_tokens=17, motion=motion_BTHW, seed=[11, 12])
    perturbed_BN = motion_BTHW.flatten(1) + gumbel_noise([11, 12], TOKENS)
    for b in range(2):
        ranked = sorted(range(TOKENS), key=lambda i: -perturbed_BN[b, i].item())
        assert plan.targets[b].tolist() == sorted(ranked[:17])
