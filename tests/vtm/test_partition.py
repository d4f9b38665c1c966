import math

import pytest
import torch

from vtm.partition import DENSITY_STEPS, area_density, area_ranking, complement, even_targets, strided_targets
from vtm.sampling import highest

SIDES = [3, 4, 5, 7, 14, 16, 24]
SHARE_ROUNDING = 0.02
"""Weights are whole steps, and a square of a few patches has few of them."""


def densities(area, grid, count):
    """Targets a patch, of each place of the picture: (H, W)."""
    target_M = highest(area_ranking(area, grid)[None], count)[0]
    return torch.bincount(target_M % (grid[1] * grid[2]), minlength=grid[1] * grid[2]).view(grid[1:]) / grid[0]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("area", ["center", "boundary"])
def test_a_quarter_of_the_picture_has_half_of_the_targets_on_every_grid(area, side):
    """Patches that the edge of the area crosses belong to both sides in proportion to their share."""
    density_HW = area_density(area, (1, side, side)).view(side, side) / DENSITY_STEPS
    in_area_HW = (density_HW - 1) / 2
    assert in_area_HW.mean() == pytest.approx(0.25, abs=SHARE_ROUNDING)
    assert (3 * in_area_HW).sum() / density_HW.sum() == pytest.approx(0.5, abs=2 * SHARE_ROUNDING)


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
@pytest.mark.parametrize(("grid", "count"), [((60, 7, 7), 490), ((60, 16, 16), 1536), ((60, 16, 16), 307)])
def test_every_part_of_a_clip_has_its_share_of_the_targets(area, grid, count):
    target_M = highest(area_ranking(area, grid)[None], count)[0]
    tenths = torch.bincount(target_M // (6 * grid[1] * grid[2]), minlength=10).double()
    assert tenths.var() / tenths.mean() < 0.5, "random targets have 1"


@pytest.mark.parametrize("area", ["center", "boundary"])
@pytest.mark.parametrize("partition_factor", [6, 8, 10])
def test_no_place_of_the_picture_is_left_out(area, partition_factor):
    """A stride of 15 over the 192 patches around the centre would take a third of them, in every frame the same."""
    grid = (60, 16, 16)
    density_HW = densities(area, grid, 60 * 256 // partition_factor)
    expected_HW = area_density(area, (1, 16, 16)).view(16, 16) / DENSITY_STEPS / 1.5 / partition_factor
    assert (density_HW == 0).float().mean() < 0.01
    assert (density_HW - expected_HW).abs().max() < 0.06


@pytest.mark.parametrize("grid", [(60, 16, 16), (60, 7, 7), (20, 4, 4)])
@pytest.mark.parametrize("partition_factor", [2, 6, 10])
def test_each_density_has_its_share(grid, partition_factor):
    """Section 3.3's factors: γ/2 in the area, 3γ/2 outside."""
    count = math.prod(grid) // partition_factor
    for area in ("center", "boundary"):
        density_N = area_density(area, grid)
        target_M = highest(area_ranking(area, grid)[None], count)[0]
        for steps in density_N.unique().tolist():
            share = count * steps * int((density_N == steps).sum()) / int(density_N.sum())
            assert int((density_N[target_M] == steps).sum()) == pytest.approx(share, rel=0.05, abs=4)


@pytest.mark.parametrize("area", ["center", "boundary"])
@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 1, 3), (3, 5, 7), (1, 2, 2)])
def test_small_grids_give_any_number_of_targets(area, grid):
    total = grid[0] * grid[1] * grid[2]
    for count in range(1, total + 1):
        target_M = highest(area_ranking(area, grid)[None], count)[0]
        assert len(set(target_M.tolist())) == count
        assert target_M.tolist() == sorted(target_M.tolist())
        assert 0 <= target_M.min() <= target_M.max() < total


def test_even_targets_are_the_stride_where_it_divides():
    assert torch.equal(even_targets(105, 21), strided_targets(105, 5))
    assert even_targets(10, 4).tolist() == [0, 2, 5, 7]


def test_the_complement_is_all_else_in_order():
    target_BM = torch.tensor([[0, 3, 4], [1, 2, 6]])
    assert complement(target_BM, 7).tolist() == [[1, 2, 5, 6], [0, 3, 4, 5]]
