"""Which tokens of a clip are merge targets, by position alone.

Every choice of targets is in increasing order. Letters: B batch, N tokens, M targets.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vtm.plan import Grid
from vtm.sampling import phases

Area = Literal["center", "boundary"]
"""Where half of the targets of the strategy of that name lie."""

DENSITY_STEPS = 64
"""A density of 1 as an integer: integers rank alike on every device."""


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
    """M targets at equal distances, floor(m · N / M): equation 1 for a share that is no 1 / γ.

    Args:
        total: N.
        num_targets: M, at most N.
        device: where the targets are to be.

    Returns:
        (M,) int64; equal to the stride γ where N = γ · M.
    """
    return torch.arange(num_targets, device=device) * total // max(1, num_targets)


def area_ranking(area: Area, grid: Grid, device: torch.device | str = "cpu") -> Tensor:
    """Rank the tokens so that any number of highest ranks are three times as dense in a quarter of the picture.

    That is the paper's factor γ/2 in the area and 3γ/2 outside, half of the targets each (section 3.3), at every number
    of targets. The rank is a low-discrepancy phase over the density, so that targets lie evenly over frames, rows and
    columns both inside and outside: the paper's strides alias where they share a factor with the grid.

    Args:
        area: which quarter.
        grid: T, H, W.
        device: where the ranking is to be.

    Returns:
        (T·H·W,) int64.
    """
    return -(phases(grid, device) * (3 * DENSITY_STEPS) // area_density(area, grid, device))


def area_density(area: Area, grid: Grid, device: torch.device | str = "cpu") -> Tensor:
    """The density of targets at each patch.

    `center` is the central H/2 × W/2. The paper gives no size for the boundary: `boundary` is the outermost quarter of
    the picture, which mirrors its central quarter. A patch that the edge of the area crosses counts by the share of it
    inside, so that the area is a quarter on every grid: a border of whole patches is half of a 7 × 7 grid.

    Args:
        area: which of the two.
        grid: T, H, W.
        device: where the densities are to be.

    Returns:
        (T·H·W,) int64, DENSITY_STEPS outside the area and three times as many inside.
    """
    frames, rows, columns = grid
    side = 0.5 if area == "center" else math.sqrt(0.75)
    inner_HW = _covered(rows, side, device)[:, None] * _covered(columns, side, device)
    inside_HW = inner_HW if area == "center" else 1 - inner_HW
    return (DENSITY_STEPS * (1 + 2 * inside_HW)).round().long().flatten().repeat(frames)


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


def _covered(side: int, share: float, device: torch.device | str) -> Tensor:
    """(side,) float64: how much of each of `side` patches in a line the middle `share` of the line covers."""
    first, last = side * (1 - share) / 2, side * (1 + share) / 2
    patch = torch.arange(side, device=device, dtype=torch.float64)
    return ((patch + 1).clamp_max(last) - patch.clamp_min(first)).clamp_min(0)
