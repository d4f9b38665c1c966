"""Merges of one round: pairs of groups become one, and which merged into which, at what loss, is recorded.

Letters: M groups at the start, K of them left, P pairs, C channels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vtm.merge_groups import Groups, tensors_of


def nothing_merged(groups: Groups) -> tuple[Tensor, Tensor]:
    """The record before any merge: each group its own parent, at an infinite loss; (M,) each."""
    return groups.index_K.clone(), torch.full_like(groups.height_K, torch.inf)


def merge_mutual(groups: Groups, nearest_K: Tensor, loss_K: Tensor) -> tuple[Groups, Tensor, Tensor]:
    """Merge the mutually nearest pairs, the second of each into the first.

    Returns:
        The groups after it; the position that each merged into, its own where it did not; the height of that merge.
    """
    position_K = torch.arange(len(nearest_K), device=nearest_K.device)
    mutual_K = (nearest_K[nearest_K] == position_K) & (loss_K < torch.inf)
    first_K, second_K = mutual_K & (position_K < nearest_K), mutual_K & (position_K > nearest_K)
    other_K = torch.where(first_K, nearest_K, position_K)

    gains_K1 = first_K[:, None].double()
    sum_KC = groups.sum_KC + gains_K1 * groups.sum_KC[other_K]
    norm_K = torch.linalg.vector_norm(sum_KC, dim=1)
    cost_K = (groups.norm_K + groups.norm_K[other_K] - norm_K).float()
    height_K = torch.where(
        first_K,
        torch.maximum(cost_K, _above(torch.maximum(groups.height_K, groups.height_K[other_K]))),
        groups.height_K,
    )
    merged = replace(
        groups,
        alive_K=groups.alive_K & ~second_K,
        sum_KC=sum_KC,
        norm_K=norm_K,
        height_K=height_K,
        compared_KA=groups.compared_KA + gains_K1.float() * groups.compared_KA[other_K],
        first_K=torch.minimum(groups.first_K, groups.first_K[other_K]),
        last_K=torch.maximum(groups.last_K, groups.last_K[other_K]),
    )
    into_K = torch.where(second_K, nearest_K, position_K)
    return merged, into_K, height_K[into_K]


def merge_pairs(groups: Groups, nearest_K: Tensor, loss_K: Tensor, parent_M: Tensor, height_M: Tensor) -> Groups:
    """As `merge_mutual`, to the bit, and as `recorded`, in place: the pairs alone are computed, and dropped at once.

    How many pairs there are is a value, which on a GPU the host would wait for.
    """
    position_K = torch.arange(len(nearest_K))
    is_mutual_K = (nearest_K[nearest_K] == position_K) & (loss_K < torch.inf)
    first_P = (is_mutual_K & (position_K < nearest_K)).nonzero()[:, 0]
    second_P = nearest_K[first_P]

    sum_PC = groups.sum_KC[first_P] + groups.sum_KC[second_P]
    norm_P = torch.linalg.vector_norm(sum_PC, dim=1)
    cost_P = (groups.norm_K[first_P] + groups.norm_K[second_P] - norm_P).float()
    height_P = torch.maximum(cost_P, _above(torch.maximum(groups.height_K[first_P], groups.height_K[second_P])))
    merged = {
        "sum_KC": sum_PC,
        "norm_K": norm_P,
        "height_K": height_P,
        "compared_KA": groups.compared_KA[first_P] + groups.compared_KA[second_P],
        "first_K": torch.minimum(groups.first_K[first_P], groups.first_K[second_P]),
        "last_K": torch.maximum(groups.last_K[first_P], groups.last_K[second_P]),
    }
    for name, merged_P in merged.items():
        getattr(groups, name)[first_P] = merged_P
    gone_P = groups.index_K[second_P]
    parent_M[gone_P], height_M[gone_P] = groups.index_K[first_P], height_P
    is_left_K = torch.ones_like(is_mutual_K)
    is_left_K[second_P] = False
    left_L = is_left_K.nonzero()[:, 0]
    return Groups(*(x.index_select(0, left_L) for x in tensors_of(groups)))


def merge_rest(groups: Groups) -> tuple[Tensor, Tensor]:
    """Merge all groups that are left into the first of them, those of high index first; as `merge_mutual`."""
    position_K = torch.arange(len(groups.index_K), device=groups.index_K.device)
    root = torch.where(groups.alive_K, position_K, len(position_K)).amin()
    is_root_K = position_K == root
    joins_K = groups.alive_K & ~is_root_K
    masked_KC = groups.sum_KC * joins_K[:, None]
    after_KC = masked_KC.flip(0).cumsum(dim=0).flip(0) + (groups.sum_KC * is_root_K[:, None]).sum(dim=0)
    after_K = torch.linalg.vector_norm(after_KC, dim=1)
    before_K = torch.linalg.vector_norm(after_KC - masked_KC, dim=1)
    cost_K = ((groups.norm_K + before_K - after_K) * joins_K).float()
    wanted_K = torch.maximum(cost_K, _above(groups.height_K)) * joins_K
    height_K = wanted_K.flip(0).cummax(dim=0).values.flip(0)
    return torch.where(joins_K, root, position_K), height_K


def recorded(groups: Groups, into_K: Tensor, at_K: Tensor, parent_M: Tensor, height_M: Tensor) -> tuple[Tensor, Tensor]:
    """The record, (M,) parents and losses, with the merges of a round: `into_K` and `at_K` as of `merge_mutual`."""
    merged_K = into_K != torch.arange(len(into_K), device=into_K.device)
    index_K = groups.index_K
    parent_M = parent_M.scatter(0, index_K, torch.where(merged_K, index_K[into_K], parent_M[index_K]))
    return parent_M, height_M.scatter(0, index_K, torch.where(merged_K, at_K, height_M[index_K]))


def _above(x: Tensor) -> Tensor:
    """The next greater float32, and never a denormal one: some machines flush those to 0."""
    return torch.nextafter(x, torch.full_like(x, torch.inf)).clamp_min(torch.finfo(torch.float32).tiny)


def distinct(height_M: Tensor) -> Tensor:
    """Raise equal heights by as little as float32 can, so that they sort alike in whatever order the groups are."""
    sorted_M, order_M = height_M.sort(stable=True)
    finite_M = sorted_M < torch.inf
    # Positive floats are ordered as their bits are.
    step_M = torch.arange(len(height_M), device=height_M.device, dtype=torch.int32)
    raised_M = ((sorted_M.view(torch.int32) - step_M).cummax(dim=0).values + step_M).view(torch.float32)
    return torch.empty_like(height_M).scatter_(0, order_M, torch.where(finite_M, raised_M, sorted_M))
