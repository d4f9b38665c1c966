import math

import pytest
import torch

from vtm.partition import WEIGHT_STEPS, area_weights, complement, even_targets, strided_targets, weighted_targets

SIDES = [3, 4, 5, 7, 14, 16, 24]
SHARE_ROUNDING = 0.02
"""Weights are whole steps, and a square of a few patches has few of them."""


def densities(area, grid, count):
    """Targets a patch, of each place of the picture: (H, W)."""
    target_M = weighted_targets(area_weights(area, grid)[None], count)[0]
    return torch.bincount(target_M % (grid[1] * grid[2]), minlength=grid[1] * grid[2]).view(grid[1:]) / grid[0]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("area", ["center", "boundary"])
def test_a_quarter_of_the_picture_has_half_of_the_targets_on_every_grid(area, side):
    """Patches that the edge of the area crosses belong to both sides in proportion to their share."""
    weight_HW = area_weights(area, (1, side, side)).view(side, side) / WEIGHT_STEPS
    in_area_HW = (weight_HW - 1) / 2
    assert in_area_HW.mean() == pytest.approx(0.25, abs=SHARE_ROUNDING)
    assert (3 * in_area_HW).sum() / weight_HW.sum() == pytest.approx(0.5, abs=2 * SHARE_ROUNDING)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("partition_factor", [2, 6, 10])
def test_the_boundary_is_denser_at_the_border_and_the_center_in_the_middle(side, partition_factor):
    grid = (64, side, side)
    count = math.ceil(64 * side * side / partition_factor)
    for area, sign in (("boundary", 1), ("center", -1)):
        density_HW = densities(area, grid, count)
        inside = density_HW[1:-1, 1:-1].mean()
        border = (density_HW.sum() - density_HW[1:-1, 1:-1].sum()) / (4 * side - 4)
        assert sign * (border - inside) > 0.02 / partition_factor
        assert density_HW.sum() * 64 == count


@pytest.mark.parametrize("area", ["center", "boundary"])
def test_every_part_of_a_clip_has_its_share_of_the_targets(area):
    grid = (60, 7, 7)
    target_M = weighted_targets(area_weights(area, grid)[None], 490)[0]
    tenths = torch.bincount(target_M // (6 * 49), minlength=10)
    assert tenths.tolist() == pytest.approx([49] * 10, abs=2)


def test_a_square_of_whole_patches_is_the_papers_two_factors():
    """16 x 16 patches, γ = 8: every γ/2-th token of the central quarter and every 3γ/2-th of the rest."""
    weight_N = area_weights("center", (2, 16, 16))
    inside_K, outside_K = (torch.nonzero(weight_N == steps).flatten() for steps in (3 * WEIGHT_STEPS, WEIGHT_STEPS))
    assert len(inside_K) == 128
    expected = torch.cat((inside_K[::4], outside_K[::12])).sort().values
    assert torch.equal(weighted_targets(weight_N[None], 64)[0], expected)


@pytest.mark.parametrize("area", ["center", "boundary"])
@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 1, 3), (3, 5, 7), (1, 2, 2)])
def test_small_grids_give_any_number_of_targets(area, grid):
    total = grid[0] * grid[1] * grid[2]
    for count in range(1, total + 1):
        target_M = weighted_targets(area_weights(area, grid)[None], count)[0]
        assert len(set(target_M.tolist())) == count
        assert target_M.tolist() == sorted(target_M.tolist())
        assert 0 <= target_M.min() <= target_M.max() < total


def test_weights_are_each_rows_own_and_equal_ones_are_even():
    weight_BN = torch.tensor([[0] * 12, [5] * 12, [1] * 11 + [99], [9] * 4 + [0] * 8])
    even = even_targets(12, 4).tolist()
    assert weighted_targets(weight_BN, 4).tolist() == [even, even, [0, 3, 7, 11], [0, 1, 2, 3]]


def test_even_targets_are_the_stride_where_it_divides():
    assert torch.equal(even_targets(105, 21), strided_targets(105, 5))
    assert even_targets(10, 4).tolist() == [0, 2, 5, 7]


def test_the_complement_is_all_else_in_order():
    target_BM = torch.tensor([[0, 3, 4], [1, 2, 6]])
    assert complement(target_BM, 7).tolist() == [[1, 2, 5, 6], [0, 3, 4, 5]]
