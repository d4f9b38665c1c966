"""Who merges with whom: each source finds the target whose key is nearest by cosine (the paper's equation 3).

The similarities are computed in blocks, so no N × M matrix is ever in memory.
Letters: B batch, N tokens, S sources, M targets, D key channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK_SIMILARITIES = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Similarities in memory at a time, by device: what stays in a core's cache, or what fills a GPU."""


@torch.no_grad()
def nearest_targets(keys_BND: Tensor, source_BS: Tensor, target_BM: Tensor) -> tuple[Tensor, Tensor]:
    """Match each source with its nearest target.

    Args:
        keys_BND: (B, N, D), any float dtype; compared in float32, or in float64 where they are.
        source_BS: (B, S) int64 token indices.
        target_BM: (B, M) int64 token indices.

    Returns:
        The position in [0, M) of each source's target, (B, S) int64, the first of equals, and their cosine, (B, S).
    """
    precise = torch.promote_types(keys_BND.dtype, torch.float32)
    directions_BMD = F.normalize(take_tokens(keys_BND, target_BM).to(precise), dim=2)
    return nearest_directions(keys_BND, directions_BMD, source_BS)


@torch.no_grad()
def nearest_directions(
    keys_BND: Tensor, directions_BMD: Tensor, source_BS: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Match each source, or every token, with its nearest direction.

    Args:
        keys_BND: (B, N, D), any float dtype.
        directions_BMD: (B, M, D) unit vectors, float32 or float64: the dtype of the comparison.
        source_BS: (B, S) int64 token indices; all tokens in order by default.

    Returns:
        As `nearest_targets`.
    """
    total = keys_BND.shape[1] if source_BS is None else source_BS.shape[1]
    position_BS = torch.empty(len(keys_BND), total, dtype=torch.int64, device=keys_BND.device)
    cosine_BS = directions_BMD.new_empty(len(keys_BND), total)
    rows = _block_rows(directions_BMD)
    for start in range(0, total, rows):
        mine = slice(start, start + rows)
        block_BSD = keys_BND[:, mine] if source_BS is None else take_tokens(keys_BND, source_BS[:, mine])
        block_BSD = block_BSD.to(directions_BMD.dtype)
        best_BS, position_BS[:, mine] = torch.bmm(block_BSD, directions_BMD.transpose(1, 2)).max(dim=2)
        # A source's own norm changes no argmax, so it divides the winners alone.
        norm_BS = torch.linalg.vector_norm(block_BSD, dim=2).clamp_min(torch.finfo(directions_BMD.dtype).tiny)
        cosine_BS[:, mine] = best_BS / norm_BS
    return position_BS, cosine_BS


def take_tokens(x_BNC: Tensor, index_BM: Tensor) -> Tensor:
    """The tokens at given positions.

    Args:
        x_BNC: (B, N, C), any dtype; gradients flow through.
        index_BM: (B, M) int64 in [0, N).

    Returns:
        (B, M, C) in the dtype of x.
    """
    offset_B1 = torch.arange(len(x_BNC), device=x_BNC.device)[:, None] * x_BNC.shape[1]
    rows = x_BNC.flatten(0, 1).index_select(0, (index_BM + offset_B1).flatten())
    return rows.view(*index_BM.shape, x_BNC.shape[2])


def _block_rows(directions_BMD: Tensor) -> int:
    batch, targets, _ = directions_BMD.shape
    bound = BLOCK_SIMILARITIES["cpu" if directions_BMD.device.type == "cpu" else "cuda"]
    return max(1, bound // max(1, batch * targets))
