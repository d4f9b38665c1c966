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
    keys_BND = keys_BND.to(torch.promote_types(keys_BND.dtype, torch.float32))
    directions_BMD = F.normalize(take_tokens(keys_BND, target_BM), dim=2)
    return nearest_directions(keys_BND, source_BS, directions_BMD)


@torch.no_grad()
def nearest_directions(keys_BND: Tensor, source_BS: Tensor, directions_BMD: Tensor) -> tuple[Tensor, Tensor]:
    """Match each source with its nearest unit vector; as `nearest_targets`, for directions that are no token's own."""
    positions, cosines = [], []
    rows = _block_rows(directions_BMD)
    for start in range(0, source_BS.shape[1], rows):
        block_BSD = take_tokens(keys_BND, source_BS[:, start : start + rows])
        # A source's own norm changes no argmax, so it divides the winners alone.
        best = torch.bmm(block_BSD, directions_BMD.transpose(1, 2)).max(dim=2)
        norm_BS = torch.linalg.vector_norm(block_BSD, dim=2).clamp_min(torch.finfo(keys_BND.dtype).tiny)
        positions.append(best.indices)
        cosines.append(best.values / norm_BS)
    if not positions:
        return torch.zeros_like(source_BS), keys_BND.new_zeros(source_BS.shape)
    return torch.cat(positions, dim=1), torch.cat(cosines, dim=1)


def take_tokens(x_BNC: Tensor, index_BM: Tensor) -> Tensor:
    """The tokens at given positions, (B, M, C)."""
    offset_B1 = torch.arange(len(x_BNC), device=x_BNC.device)[:, None] * x_BNC.shape[1]
    rows = x_BNC.flatten(0, 1).index_select(0, (index_BM + offset_B1).flatten())
    return rows.view(*index_BM.shape, x_BNC.shape[2])


def _block_rows(directions_BMD: Tensor) -> int:
    batch, targets, _ = directions_BMD.shape
    bound = BLOCK_SIMILARITIES["cuda" if directions_BMD.is_cuda else "cpu"]
    return max(1, bound // (batch * targets))
