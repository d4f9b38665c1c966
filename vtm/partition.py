"""Which tokens of a clip are merge targets, by position alone.

Every choice of targets is in increasing order. Letters: B batch, N tokens, M targets.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vtm.plan import Grid

Area = Literal["center", "boundary"]
"""Where half of the targets of the strategy of that name lie."""

WEIGHT_STEPS = 64
"""Whole steps of a weight of 1: whole numbers add up alike on every device."""


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


def area_weights(area: Area, grid: Grid, device: torch.device | str = "cpu") -> Tensor:
    """How densely targets lie in each patch: three times as densely in a quarter of the picture as outside of it.

    That is the paper's factor γ/2 in the area and 3γ/2 outside (section 3.3), half of the targets each. `center` is the
    central H/2 × W/2. The paper gives no size for the boundary: `boundary` is the outermost quarter of the picture,
    which mirrors its central quarter. A patch that the edge of the area crosses counts by the share of it inside, so
    that the area is a quarter on every grid: a border of whole patches is half of a 7 × 7 grid.

    Args:
        area: which of the two.
        grid: T, H, W.
        device: where the weights are to be.

    Returns:
        (T·H·W,) int64, WEIGHT_STEPS outside the area and three times as many inside.
    """
    frames, rows, columns = grid
    side = 0.5 if area == "center" else math.sqrt(0.75)
    inner_HW = _covered(rows, side, device)[:, None] * _covered(columns, side, device)
    inside_HW = inner_HW if area == "center" else 1 - inner_HW
    return (WEIGHT_STEPS * (1 + 2 * inside_HW)).round().long().flatten().repeat(frames)


def weighted_targets(weight_BN: Tensor, num_targets: int) -> Tensor:
    """M targets, as densely as weights say and evenly among tokens of equal weight.

    Tokens are laid in a row, the heaviest first, each as long as its weight; M marks at equal distances hit the
    targets. Where a token is longer than the distance, all weights are raised until none is.

    Args:
        weight_BN: (B, N) int64, not negative.
        num_targets: M, at most N.

    Returns:
        (B, M) int64, increasing in each row; of each weight's share of the targets, to within one.
    """
    total = weight_BN.shape[1]
    if num_targets == total:
        return torch.arange(total, device=weight_BN.device).expand(len(weight_BN), -1)
    surplus_B1 = weight_BN.amax(dim=1, keepdim=True) * num_targets - weight_BN.sum(dim=1, keepdim=True)
    length_BN, order_BN = weight_BN.sort(dim=1, descending=True, stable=True)
    # At least 1: tokens without any weight are chosen evenly.
    length_BN = length_BN + ((surplus_B1 + total - num_targets - 1) // (total - num_targets)).clamp_min(0)
    length_BN = length_BN + (length_BN.sum(dim=1, keepdim=True) == 0)
    end_BN = length_BN.cumsum(dim=1)
    whole_B1 = end_BN[:, -1:]
    # Marks lie at multiples of whole / M, the first at 0: a token from a to b holds one where a·M - 1 and b·M - 1 lie
    # in different multiples of the whole.
    marks_BN = (end_BN * num_targets - 1).div(whole_B1, rounding_mode="floor")
    before_BN = ((end_BN - length_BN) * num_targets - 1).div(whole_B1, rounding_mode="floor")
    hit_BN = (marks_BN > before_BN).to(torch.uint8)
    place_BM = hit_BN.argsort(dim=1, descending=True, stable=True)[:, :num_targets]
    return order_BN.gather(1, place_BM).sort(dim=1).values


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
