"""The merge step of Lee et al. 2024 (arXiv:2410.23782, section 3.1): targets and keys in, a plan out.

Letters: B batch, N tokens, M targets, S sources, G groups, D key channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtm.budget import num_merged
from vtm.finite import check_finite
from vtm.matching import nearest_targets
from vtm.partition import complement
from vtm.plan import MergePlan


def plan_from_targets(keys_BND: Tensor, target_BM: Tensor, merge_share: float = 1.0) -> MergePlan:
    """Match every source with its nearest target and merge the R closest (equations 3 to 5).

    Args:
        keys_BND: (B, N, D), any float dtype; no gradient is taken.
        target_BM: (B, M) int64, increasing in each row.
        merge_share: R as a share of the sources; the others stay as they are.

    Returns:
        A plan of M + |S| - R groups, ordered by the position of their target.

    Raises:
        MergeError: on a CPU, some keys are not finite; elsewhere nothing is looked at, so that the host does not wait.
    """
    check_finite("keys", keys_BND)
    return matched_plan(keys_BND, target_BM, merge_share)


def matched_plan(keys_BND: Tensor, target_BM: Tensor, merge_share: float = 1.0) -> MergePlan:
    """`plan_from_targets` of keys that were looked at before, or that a network in training computes.

    There the loss says what is not a number, and what to do about it.
    """
    source_BS = complement(target_BM, keys_BND.shape[1])
    nearest_BS, cosine_BS = nearest_targets(keys_BND, source_BS, target_BM)
    return grow_groups(target_BM, source_BS, nearest_BS, cosine_BS, num_merged(source_BS.shape[1], merge_share))


def grow_groups(target_BM: Tensor, source_BS: Tensor, nearest_BS: Tensor, cosine_BS: Tensor, merged: int) -> MergePlan:
    """Let the R most similar sources join their targets; the others become groups of their own (equation 5).

    Args:
        target_BM: (B, M) int64, increasing in each row.
        source_BS: (B, S) int64, all other tokens, increasing in each row.
        nearest_BS: (B, S) int64 in [0, M), the target each source is matched with.
        cosine_BS: (B, S) how similar they are; among equals the first sources merge.
        merged: R.

    Returns:
        A plan of G = M + |S| - R groups, ordered by the position of their target.
    """
    total = target_BM.shape[1] + source_BS.shape[1]
    own_BG = target_BM
    if merged < source_BS.shape[1]:
        order_BS = cosine_BS.argsort(dim=1, descending=True, stable=True)
        nearest_BS, source_BS = nearest_BS.gather(1, order_BS[:, :merged]), source_BS.gather(1, order_BS)
        own_BG = torch.cat((target_BM, source_BS[:, merged:]), dim=1).sort(dim=1).values
        source_BS = source_BS[:, :merged]
    group_BN = target_BM.new_zeros(len(target_BM), total)
    group_BN.scatter_(1, own_BG, torch.arange(own_BG.shape[1], device=own_BG.device).expand_as(own_BG))
    group_BN.scatter_(1, source_BS, group_BN.gather(1, target_BM.gather(1, nearest_BS)))
    return MergePlan(group=group_BN, num_groups=own_BG.shape[1], targets=own_BG)
