"""Which tokens of a clip are merge targets, by position alone.

Every function returns targets in increasing order. Letters: B batch, N tokens, M targets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vtm.plan import Grid, token_positions


def strided_targets(total: int, partition_factor: int) -> Tensor:
    """Every γ-th token, starting with the first (the paper's equations 1 and 2). Returns (ceil(N / γ),) int64."""
    return torch.arange(0, total, partition_factor)


def even_targets(total: int, num_targets: int) -> Tensor:
    """M targets spread evenly: floor(m · N / M). Returns (M,) int64; equal to the stride γ where N = γ · M."""
    return torch.arange(num_targets) * total // max(1, num_targets)


def center_targets(grid: Grid, num_targets: int, partition_factor: int | None = None) -> Tensor:
    """Half of the targets from the central area of H/2 × W/2: factor γ/2 there, 3γ/2 outside (section 3.3).

    The index i that γ divides counts all tokens of the clip. Where the factors leave a few targets more or fewer than
    M, the last are left out, or tokens of the next remainder join.

    Args:
        grid: T, H, W.
        num_targets: M; an odd one is the area's.
        partition_factor: γ; N / M by default.

    Returns:
        (M,) int64.
    """
    frames, rows, columns = grid
    height, width = max(1, rows // 2), max(1, columns // 2)
    return _half_from(_rectangle(grid, height, width), frames * height * width, num_targets, partition_factor)


def boundary_targets(grid: Grid, num_targets: int, partition_factor: int | None = None) -> Tensor:
    """The opposite of `center_targets`: half of the targets from the outermost quarter of the picture.

    The paper gives no size for the boundary. A border of a quarter of the area mirrors its central area, with the same
    factors, so that the central H/2 × W/2 gets the factor 3γ/2, as all that lies outside of it does there.

    Args:
        grid: T, H, W.
        num_targets: M; an odd one is the border's.
        partition_factor: γ; N / M by default.

    Returns:
        (M,) int64.
    """
    frames, rows, columns = grid
    height, width = _inner_side(rows), _inner_side(columns)
    return _half_from(
        ~_rectangle(grid, height, width), frames * (rows * columns - height * width), num_targets, partition_factor
    )


def complement(target_BM: Tensor, total: int) -> Tensor:
    """The sources: all tokens that are no target. Returns (B, N - M) int64, increasing."""
    is_target_BN = torch.zeros(target_BM.shape[0], total, dtype=torch.uint8, device=target_BM.device)
    is_target_BN.scatter_(1, target_BM, 1)
    # A stable sort puts the sources first and in order, with a size known beforehand: no wait for the device.
    return is_target_BN.argsort(dim=1, stable=True)[:, : total - target_BM.shape[1]]


def _inner_side(side: int) -> int:
    """The side of a centred rectangle of three quarters of the area, of the same parity as the whole's."""
    return max(0, side - 2 * max(1, round(side * (1 - math.sqrt(0.75)) / 2)))


def _rectangle(grid: Grid, height: int, width: int) -> Tensor:
    """(N,) bool: whether a token lies in the centred rectangle."""
    _, rows, columns = grid
    top, left = (rows - height) // 2, (columns - width) // 2
    _, y_N, x_N = token_positions(grid).unbind(dim=1)
    return (y_N >= top) & (y_N < top + height) & (x_N >= left) & (x_N < left + width)


def _half_from(area_N: Tensor, area_size: int, num_targets: int, partition_factor: int | None) -> Tensor:
    """Half of the targets from an area, half from the rest, as far as each has tokens. Returns (M,) int64."""
    total = len(area_N)
    from_area = max(min(-(-num_targets // 2), area_size), num_targets - (total - area_size))
    # γ as a fraction: what is given, or N / M.
    over, under = (total, num_targets) if partition_factor is None else (partition_factor, 1)
    index_N = 2 * under * torch.arange(total)
    in_area = _first_by(index_N % over, area_N, from_area)
    in_rest = _first_by(index_N % (3 * over), ~area_N, num_targets - from_area)
    return torch.cat((in_area, in_rest)).sort().values


def _first_by(phase_N: Tensor, area_N: Tensor, count: int) -> Tensor:
    """Exactly `count` tokens of an area, those of phase 0, the paper's targets, first."""
    return phase_N.masked_fill(~area_N, torch.iinfo(phase_N.dtype).max).argsort(stable=True)[:count]
