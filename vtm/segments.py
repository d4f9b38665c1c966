"""Sums of tokens by group, the same bits at every call on every device.

Letters: B batch, N tokens, M groups, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def segment_sum(x_BNC: Tensor, group_BN: Tensor, num_groups: int) -> Tensor:
    """Add up the tokens of each group.

    Args:
        x_BNC: (B, N, C), any float dtype.
        group_BN: (B, N) int64 in [0, num_groups).
        num_groups: M.

    Returns:
        (B, M, C) in float32, or in float64 where x is.
    """
    x_BNC = x_BNC.to(torch.promote_types(x_BNC.dtype, torch.float32))
    batch, _, channels = x_BNC.shape
    rows_BN = group_BN + torch.arange(batch, device=group_BN.device)[:, None] * num_groups
    sums = sorted_sum if x_BNC.is_cuda else scattered_sum
    return sums(x_BNC.flatten(0, 1), rows_BN.flatten(), batch * num_groups).view(batch, num_groups, channels)


def scattered_sum(x_NC: Tensor, row_N: Tensor, num_rows: int) -> Tensor:
    """Add each token to its row, in token order; deterministic on a CPU only.

    Args:
        x_NC: (N, C) float32 or float64; gradients flow through.
        row_N: (N,) int64 in [0, num_rows).
        num_rows: rows of the result.

    Returns:
        (num_rows, C) in the dtype of x.
    """
    return x_NC.new_zeros(num_rows, x_NC.shape[1]).index_add(0, row_N, x_NC)


def sorted_sum(x_NC: Tensor, row_N: Tensor, num_rows: int) -> Tensor:
    """Sort tokens by row and add up runs: deterministic where adding in place is a race.

    Arguments and result as those of `scattered_sum`.
    """
    order_N = row_N.argsort(stable=True)
    lengths = row_N.new_zeros(num_rows).scatter_add_(0, row_N, torch.ones_like(row_N))
    return torch.segment_reduce(x_NC.index_select(0, order_N), "sum", lengths=lengths, axis=0, unsafe=True, initial=0)
