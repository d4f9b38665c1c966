import pytest
import torch

from vtm.partition import area_targets, complement, even_targets, strided_targets

GRIDS = [(60, 16, 16), (3, 14, 14), (5, 12, 20), (4, 16, 8)]


def positions(target_M, grid):
    _, rows, columns = grid
    return target_M // columns % rows, target_M % columns


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("partition_factor", [2, 6, 7, 10])
def test_center_takes_half_from_the_central_quarter(grid, partition_factor):
    frames, rows, columns = grid
    count = -(-frames * rows * columns // partition_factor)
    target_M = area_targets("center", grid, count, partition_factor)
    y_M, x_M = positions(target_M, grid)
    top, left = (rows - rows // 2) // 2, (columns - columns // 2) // 2
    inside_M = (y_M >= top) & (y_M < top + rows // 2) & (x_M >= left) & (x_M < left + columns // 2)
    assert len(target_M.unique()) == len(target_M) == count
    assert int(inside_M.sum()) == (count + 1) // 2


@pytest.mark.parametrize("partition_factor", [6, 10])
def test_boundary_takes_half_from_the_border_and_a_sixth_from_the_centre(partition_factor):
    grid = (60, 16, 16)
    count = 60 * 256 // partition_factor
    y_M, x_M = positions(area_targets("boundary", grid, count, partition_factor), grid)
    on_border_M = (y_M == 0) | (y_M == 15) | (x_M == 0) | (x_M == 15)
    central_M = (y_M >= 4) & (y_M < 12) & (x_M >= 4) & (x_M < 12)
    assert int(on_border_M.sum()) == count // 2
    assert abs(int(central_M.sum()) - count / 6) < 0.02 * count
    assert len(y_M) == count


@pytest.mark.parametrize("area", ["center", "boundary"])
@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 1, 3), (3, 5, 7), (1, 2, 2)])
def test_small_grids_give_any_number_of_targets(area, grid):
    total = grid[0] * grid[1] * grid[2]
    for count in range(1, total + 1):
        target_M = area_targets(area, grid, count)
        assert len(set(target_M.tolist())) == count
        assert target_M.tolist() == sorted(target_M.tolist())
        assert 0 <= target_M.min() <= target_M.max() < total


def test_even_targets_are_the_stride_where_it_divides():
    assert torch.equal(even_targets(105, 21), strided_targets(105, 5))
    assert even_targets(10, 4).tolist() == [0, 2, 5, 7]


def test_the_complement_is_all_else_in_order():
    target_BM = torch.tensor([[0, 3, 4], [1, 2, 6]])
    assert complement(target_BM, 7).tolist() == [[1, 2, 5, 6], [0, 3, 4, 5]]
