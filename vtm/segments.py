"""Sums of tokens by group, the same bits at every call on every device.

Letters: B batch, N tokens, M groups, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SortedRows(NamedTuple):
    """Tokens in order of the row that they are added to."""

    order: Tensor
    """(B·N,) int64, positions in the flattened batch."""
    lengths: Tensor
    """(B·M,) int64, tokens of each row."""


def segment_sum(x_BNC: Tensor, group_BN: Tensor, num_groups: int, rows: SortedRows | None = None) -> Tensor:
    """Add up the tokens of each group.

    Args:
        x_BNC: (B, N, C), any float dtype.
        group_BN: (B, N) int64 in [0, num_groups).
        num_groups: M.
        rows: `sort_rows` of the group map, where it is known already; only a GPU reads it.

    Returns:
        (B, M, C) in float32, or in float64 where x is.
    """
    x_BNC = x_BNC.to(torch.promote_types(x_BNC.dtype, torch.float32))
    batch, _, channels = x_BNC.shape
    x_NC = x_BNC.flatten(0, 1)
    if x_BNC.device.type != "cpu":
        sums = sorted_sum(x_NC, rows or sort_rows(group_BN, num_groups))
    else:
        sums = scattered_sum(x_NC, _flat_rows(group_BN, num_groups), batch * num_groups)
    return sums.view(batch, num_groups, channels)


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


def sort_rows(group_BN: Tensor, num_groups: int) -> SortedRows:
    """Sort the tokens of a batch by group.

    Args:
        group_BN: (B, N) int64 in [0, num_groups).
        num_groups: M.
    """
    row_N = _flat_rows(group_BN, num_groups)
    lengths = row_N.new_zeros(len(group_BN) * num_groups).scatter_add_(0, row_N, torch.ones_like(row_N))
    return SortedRows(row_N.argsort(stable=True), lengths)


def sorted_sum(x_NC: Tensor, rows: SortedRows) -> Tensor:
    """Add up runs of sorted tokens: deterministic where adding in place is a race.

    Args:
        x_NC: (N, C) float32 or float64; gradients flow through.
        rows: `sort_rows` of the tokens' groups.

    Returns:
        (M, C) in the dtype of x.
    """
    sorted_NC = x_NC.index_select(0, rows.order)
    return torch.segment_reduce(sorted_NC, "sum", lengths=rows.lengths, axis=0, unsafe=True, initial=0)


def _flat_rows(group_BN: Tensor, num_groups: int) -> Tensor:
    return (group_BN + torch.arange(len(group_BN), device=group_BN.device)[:, None] * num_groups).flatten()
