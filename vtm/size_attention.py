"""Attention that knows how many source tokens each token represents: the logarithm of its size is added to its scores.

A merged token with the mean of n equal keys and values then counts as the n did: exp(s + log n) = n exp(s). Known as
proportional attention (Bolya et al., Token Merging: Your ViT But Faster, 2023, equation 1).

Letters: B batch, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def size_bias(sizes_BL: Tensor) -> Tensor:
    """(B, 1, 1, L) float32 for the scores of every query against each key; to be added before softmax.

    Args:
        sizes_BL: how many source tokens each represents, 1 for one that was not merged; 0 hides a token, as padding.

    Raises:
        ValueError: a size is below 0; a GPU is not waited for to look.
    """
    if sizes_BL.device.type == "cpu" and bool((sizes_BL < 0).any()):
        raise ValueError(f"sizes must be 0 or more, got {sizes_BL.min().item()}")
    return sizes_BL.float().log()[:, None, None]


def size_bias_mask(sizes_BL: Tensor, *, causal: bool = False) -> Tensor:
    """A mask for `torch.nn.functional.scaled_dot_product_attention(..., attn_mask=)`, to be cast to the queries' dtype.

    Args:
        sizes_BL: as in `size_bias`.
        causal: whether a token sees those before it and itself alone.

    Returns:
        (B, 1, 1, L), or (B, 1, L, L) where causal: float32, the most negative finite value where nothing is seen.
    """
    least = torch.finfo(torch.float32).min
    bias_B11L = size_bias(sizes_BL).clamp(min=least)
    if not causal:
        return bias_B11L
    length = sizes_BL.shape[1]
    hidden_LL = torch.ones(length, length, dtype=torch.bool, device=sizes_BL.device).triu(1)
    return bias_B11L.expand(-1, -1, length, -1).masked_fill(hidden_LL, least)


def size_bias_score_mod(sizes_BL: Tensor) -> ScoreMod:
    """The same for `torch.nn.attention.flex_attention.flex_attention(..., score_mod=)`, which builds no L x L mask.

    What is hidden, a `block_mask` says.
    """
    bias_BL = size_bias(sizes_BL)[:, 0, 0]

    def score_mod(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + bias_BL[batch, key]

    return score_mod
