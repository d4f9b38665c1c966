"""Which tokens of a clip are merge targets: index lists, decided without looking at the keys.

Every function returns targets in increasing order, (M,) or (B, M) int64. Letters: B batch, N tokens, M targets.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from vtm.plan import MergeError


def strided_targets(num_tokens: int, partition_factor: int) -> Tensor:
    """Every γ-th token, starting with the first (the paper's equations 1 and 2).

    Args:
        num_tokens: N.
        partition_factor: γ, at least 1.

    Returns:
        (ceil(N / γ),) int64.
    """
    return torch.arange(0, num_tokens, partition_factor)


def even_targets(num_tokens: int, num_targets: int) -> Tensor:
    """M targets spread evenly: floor(m · N / M). Returns (M,) int64; equal to the stride γ where N = γ · M."""
    return torch.arange(num_targets) * num_tokens // num_targets


def complement(target_BM: Tensor, num_tokens: int) -> Tensor:
    """The sources, in increasing order: all tokens that are no target. Returns (B, N - M) int64."""
    is_target_BN = torch.zeros(target_BM.shape[0], num_tokens, dtype=torch.bool, device=target_BM.device)
    is_target_BN.scatter_(1, target_BM, True)
    # A stable sort puts the sources first in order, with a size known beforehand: no wait for the device.
    return is_target_BN.to(torch.uint8).argsort(dim=1, stable=True)[:, : num_tokens - target_BM.shape[1]]


def tokens_left(num_tokens: int, keep: float) -> int:
    """How many tokens a share leaves: ceil(keep · N), keep read as the decimal that it prints as."""
    if not 0 < keep <= 1:
        raise MergeError(f"keep is the share of tokens left, above 0 and at most 1, got {keep}")
    return max(1, -(-num_tokens * Fraction(str(keep)) // 1))


def num_merged(num_sources: int, merge_share: float) -> int:
    """R of equation 5: floor(merge_share · |S|), merge_share read as the decimal that it prints as."""
    if not 0 <= merge_share <= 1:
        raise MergeError(f"merge_share is R as a share of the sources, from 0 to 1, got {merge_share}")
    return int(num_sources * Fraction(str(merge_share)) // 1)


def targets_for(num_tokens: int, left: int, merge_share: float) -> int:
    """How many targets leave exactly `left` tokens when only a share of the sources is merged.

    Raises:
        MergeError: more than `left` tokens stay unmerged whatever the number of targets.
    """
    low, high = 1, left
    while low < high:
        middle = (low + high) // 2
        if num_tokens - num_merged(num_tokens - middle, merge_share) >= left:
            high = middle
        else:
            low = middle + 1
    if num_tokens - num_merged(num_tokens - low, merge_share) != left:
        raise MergeError(
            f"merging {merge_share} of the sources cannot leave {left} of {num_tokens} tokens in one round: "
            "raise merge_share, or keep more"
        )
    return low
