"""Which tokens of a clip are merge targets, by position alone.

Every choice of targets is in increasing order. Letters: B batch, N tokens, M targets.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vtm.plan import Grid, token_positions

Area = Literal["center", "boundary"]
"""Where half of the targets of the strategy of that name lie."""


def strided_targets(total: int, partition_factor: int, device: torch.device | str = "cpu") -> Tensor:
    """Every γ-th token, starting with the first (the paper's equations 1 and 2).

    Args:
        total: N.
        partition_factor: γ.
        device: where the targets are to be.

    Returns:
        (ceil(N / γ),) int64.
    """
    return torch.arange(0, total, partition_factor, device=device)


def even_targets(total: int, num_targets: int, device: torch.device | str = "cpu") -> Tensor:
    """M targets spread evenly, floor(m · N / M): equation 1 for a share that is no 1 / γ.

    Args:
        total: N.
        num_targets: M, at most N.
        device: where the targets are to be.

    Returns:
        (M,) int64; equal to the stride γ where N = γ · M.
    """
    return torch.arange(num_targets, device=device) * total // max(1, num_targets)


def area_mask(area: Area, grid: Grid, device: torch.device | str = "cpu") -> Tensor:
    """Which patches lie in the area that half of the targets come from.

    `center` is the central H/2 × W/2 (section 3.3). The paper gives no size for the boundary: `boundary` is the
    outermost quarter of the picture, which mirrors its central quarter.

    Args:
        area: which of the two.
        grid: T, H, W.
        device: where the mask is to be.

    Returns:
        (T·H·W,) bool.
    """
    _, rows, columns = grid
    height, width = _inner_sides(area, grid)
    top, left = (rows - height) // 2, (columns - width) // 2
    _, y_N, x_N = token_positions(grid, device).unbind(dim=1)
    inner_N = (y_N >= top) & (y_N < top + height) & (x_N >= left) & (x_N < left + width)
    return inner_N if area == "center" else ~inner_N


def area_targets(
    area: Area, grid: Grid, num_targets: int, partition_factor: int | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Half of the targets from an area: factor γ/2 there, 3γ/2 outside of it (section 3.3).

    The index i that γ divides counts all tokens of the clip. Where the factors leave a few targets more or fewer than
    M, the last are left out, or tokens of the next remainder join; where one side has too few, the other gives more.

    Args:
        area: `center` or `boundary`, as `area_mask` has them.
        grid: T, H, W.
        num_targets: M; an odd one is the area's.
        partition_factor: γ; N / M by default.
        device: where the targets are to be.

    Returns:
        (M,) int64, increasing.
    """
    frames, rows, columns = grid
    height, width = _inner_sides(area, grid)
    total = frames * rows * columns
    area_size = frames * height * width if area == "center" else total - frames * height * width
    from_area = max(min(-(-num_targets // 2), area_size), num_targets - (total - area_size))
    # γ as a fraction: what is given, or N / M.
    over, under = (total, num_targets) if partition_factor is None else (partition_factor, 1)
    index_N = 2 * under * torch.arange(total, device=device)
    area_N = area_mask(area, grid, device)
    in_area = _first_by(index_N % over, area_N, from_area)
    in_rest = _first_by(index_N % (3 * over), ~area_N, num_targets - from_area)
    return torch.cat((in_area, in_rest)).sort().values


def complement(target_BM: Tensor, total: int) -> Tensor:
    """The sources S: all tokens that are no target (equation 2).

    Args:
        target_BM: (B, M) int64, different in each row.
        total: N.

    Returns:
        (B, N - M) int64, increasing.
    """
    is_target_BN = torch.zeros(target_BM.shape[0], total, dtype=torch.uint8, device=target_BM.device)
    is_target_BN.scatter_(1, target_BM, 1)
    # A stable sort puts the sources first and in order, with a size known beforehand: no wait for the device.
    return is_target_BN.argsort(dim=1, stable=True)[:, : total - target_BM.shape[1]]


def _inner_sides(area: Area, grid: Grid) -> tuple[int, int]:
    """Height and width of the centred rectangle that is the area, or that the area lies around."""
    _, rows, columns = grid
    if area == "center":
        return max(1, rows // 2), max(1, columns // 2)
    return _side_inside_border(rows), _side_inside_border(columns)


def _side_inside_border(side: int) -> int:
    """The side of a centred rectangle of three quarters of the area, of the same parity as the whole's."""
    return max(0, side - 2 * max(1, round(side * (1 - math.sqrt(0.75)) / 2)))


def _first_by(phase_N: Tensor, area_N: Tensor, count: int) -> Tensor:
    """Exactly `count` tokens of an area, those of phase 0, the paper's targets, first."""
    return phase_N.masked_fill(~area_N, torch.iinfo(phase_N.dtype).max).argsort(stable=True)[:count]
