"""The search for each group's nearest, the group with which a merge loses least: all pairs, a block at a time.

Letters: K groups, A channels by which they are compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtm.merge_groups import Groups

BLOCK_PAIRS = {"cpu": 1 << 19, "cuda": 1 << 27}
"""Losses in memory at a time, by device."""


def nearest_groups(groups: Groups, alive_K: Tensor | None, max_gap_frames: int | None) -> tuple[Tensor, Tensor]:
    """The group with which a merge loses least, the first of equals, and that loss; (K,) each.

    Each pair is computed once, so that both groups get the same loss to the bit.
    """
    compared_KA = groups.compared_KA
    total, device = len(compared_KA), compared_KA.device
    norm_K = torch.linalg.vector_norm(compared_KA, dim=1)
    # |S_g + S_h|² - (|S_g| + |S_h|)² = 2·(S_g·S_h - |S_g|·|S_h|), at most 0, as one product.
    left_KA = torch.cat((2 * compared_KA, -2 * norm_K[:, None]), dim=1)
    right_KA = torch.cat((compared_KA, norm_K[:, None]), dim=1)
    loss_K = torch.full((total,), torch.inf, device=device)
    nearest_K = torch.zeros(total, dtype=torch.int64, device=device)
    rows = max(1, BLOCK_PAIRS["cpu" if compared_KA.device.type == "cpu" else "cuda"] // total)
    for start in range(0, total, rows):
        end = min(start + rows, total)
        difference = left_KA[start:end] @ right_KA[start:].T
        both = norm_K[start:end, None] + norm_K[start:]
        loss = both - difference.addcmul_(both, both).clamp_min_(0).sqrt_()
        loss.diagonal().fill_(torch.inf)
        if alive_K is not None:
            loss.masked_fill_(~(alive_K[start:end, None] & alive_K[start:]), torch.inf)
        if max_gap_frames is not None:
            loss.masked_fill_(_gap(groups, start, end) > max_gap_frames, torch.inf)
        least, column = loss.min(dim=1)
        _take_lesser(loss_K[start:end], nearest_K[start:end], least, column + start)
        if end < total:
            least, row = loss[:, end - start :].min(dim=0)
            _take_lesser(loss_K[end:], nearest_K[end:], least, row + start)
    return nearest_K, loss_K


def _take_lesser(loss_K: Tensor, nearest_K: Tensor, offered_K: Tensor, by_K: Tensor) -> None:
    """Take, in place, each offered loss that is less than the one so far."""
    less_K = offered_K < loss_K
    nearest_K.copy_(torch.where(less_K, by_K, nearest_K))
    loss_K.copy_(torch.where(less_K, offered_K, loss_K))


def _gap(groups: Groups, start: int, end: int) -> Tensor:
    """Frames between the spans of two groups; negative where they overlap."""
    later_first = torch.maximum(groups.first_K[start:end, None], groups.first_K[start:])
    return later_first - torch.minimum(groups.last_K[start:end, None], groups.last_K[start:]) - 1
