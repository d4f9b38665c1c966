"""Coverage, our own training-free strategy: few groups that represent the tokens of a clip well on average.

Four steps, on the tokens themselves where they are given, because fidelity is measured on them:

1. Half of the targets lie evenly in space and time (`even_ranking`): a fixed stride aliases with the grid.
2. The other half is drawn where the first half covers badly, with probability in proportion to (1 - cosine)².
3. Two Lloyd steps: each direction becomes the mean of the tokens nearest to it, and these are found again.
4. Every token joins the nearest direction.

Steps 1 to 3 read a fifth of the tokens, evenly placed, so the whole costs less than twice the matching of `naive`.
A rare token that is not among them may get no group of its own. docs/merging.md has the figures.

Letters: B batch, N tokens, L tokens that steps 1 to 3 read, M groups, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vtm.budget import num_merged
from vtm.matching import nearest_directions, take_tokens
from vtm.merge import grow_groups
from vtm.partition import complement
from vtm.plan import MergePlan
from vtm.sampling import highest
from vtm.segments import segment_sum

LEARN_SHARE = 0.2
"""Share of the tokens that steps 1 to 3 read."""
LEARN_PER_GROUP = 2
"""Least number of tokens per group that they read."""
LLOYD_STEPS = 2


@torch.no_grad()
def coverage_plan(
    x_BNC: Tensor,
    num_groups: int,
    ranking_BN: Tensor,
    noise_BN: Tensor,
    merge_share: float = 1.0,
    lloyd_steps: int = LLOYD_STEPS,
) -> MergePlan:
    """Group the tokens of a clip around directions that represent them well.

    Args:
        x_BNC: (B, N, C) tokens or keys, any float dtype.
        num_groups: targets M; as many groups come out where merge_share is 1.
        ranking_BN: (B, N) from `even_ranking`.
        noise_BN: (B, N) standard Gumbel noise.
        merge_share: R as a share of the sources (equation 5).
        lloyd_steps: of step 3.

    Returns:
        A plan of M + |S| - R groups, none empty, whose targets are the members nearest to their group's direction.
    """
    x_BNC = x_BNC.to(torch.promote_types(x_BNC.dtype, torch.float32))
    total = x_BNC.shape[1]
    learned = min(total, max(round(LEARN_SHARE * total), LEARN_PER_GROUP * num_groups))
    learned_BL = highest(ranking_BN, learned)
    sample_BLC = F.normalize(take_tokens(x_BNC, learned_BL), dim=2)
    directions_BMC = _seed(sample_BLC, num_groups, ranking_BN.gather(1, learned_BL), noise_BN.gather(1, learned_BL))
    for _ in range(lloyd_steps):
        nearest_BL, _ = nearest_directions(sample_BLC, directions_BMC)
        directions_BMC = _means(sample_BLC, nearest_BL, directions_BMC)
    nearest_BN, cosine_BN = nearest_directions(x_BNC, directions_BMC)
    return _plan_around(nearest_BN, cosine_BN, num_groups, merge_share)


def _seed(sample_BLC: Tensor, num_groups: int, ranking_BL: Tensor, noise_BL: Tensor) -> Tensor:
    """Steps 1 and 2, and the mean direction of each group that they make. Returns (B, M, C)."""
    even_BH = highest(ranking_BL, (num_groups + 1) // 2)
    near_BL, cosine_BL = nearest_directions(sample_BLC, take_tokens(sample_BLC, even_BH))
    lack_BL = (1 - cosine_BL).clamp_min(torch.finfo(cosine_BL.dtype).eps).log() * 2
    lack_BL = lack_BL.scatter(1, even_BH, -torch.inf)
    drawn_BH = highest(lack_BL + noise_BL, num_groups - even_BH.shape[1])
    directions_BMC = torch.cat((take_tokens(sample_BLC, even_BH), take_tokens(sample_BLC, drawn_BH)), dim=1)
    if drawn_BH.shape[1]:
        closer_BL, closer_cosine_BL = nearest_directions(sample_BLC, directions_BMC[:, even_BH.shape[1] :])
        near_BL = torch.where(closer_cosine_BL > cosine_BL, closer_BL + even_BH.shape[1], near_BL)
    return _means(sample_BLC, near_BL, directions_BMC)


def _means(sample_BLC: Tensor, nearest_BL: Tensor, directions_BMC: Tensor) -> Tensor:
    """The mean direction of each group; an empty group keeps the one it has."""
    total_BMC = segment_sum(sample_BLC, nearest_BL, directions_BMC.shape[1])
    norm_BM1 = torch.linalg.vector_norm(total_BMC, dim=2, keepdim=True)
    return torch.where(norm_BM1 > 0, total_BMC / norm_BM1, directions_BMC)


def _plan_around(nearest_BN: Tensor, cosine_BN: Tensor, num_groups: int, merge_share: float) -> MergePlan:
    """Give each group the member nearest to its direction as target, and each empty group the token covered worst."""
    order_BN = cosine_BN.argsort(dim=1, descending=True, stable=True)
    order_BN = order_BN.gather(1, nearest_BN.gather(1, order_BN).argsort(dim=1, stable=True))
    counts_BM = nearest_BN.new_zeros(len(nearest_BN), num_groups).scatter_add_(
        1, nearest_BN, torch.ones_like(nearest_BN)
    )
    first_BM = (counts_BM.cumsum(dim=1) - counts_BM).clamp_max(nearest_BN.shape[1] - 1)
    empty_BM = counts_BM == 0
    # A token that is already a target must not be given away: it sorts behind all others.
    taken_BN = torch.zeros_like(cosine_BN).scatter_add(1, order_BN.gather(1, first_BM), (~empty_BM).to(cosine_BN.dtype))
    worst_BN = cosine_BN.masked_fill(taken_BN > 0, torch.inf).argsort(dim=1, stable=True)
    spare_BM = worst_BN.gather(1, (empty_BM.cumsum(dim=1) - 1).clamp_min(0))
    target_BM = torch.where(empty_BM, spare_BM, order_BN.gather(1, first_BM))
    nearest_BN = nearest_BN.scatter(
        1, target_BM, torch.arange(num_groups, device=target_BM.device).expand_as(target_BM)
    )
    target_BM, rank_BM = target_BM.sort(dim=1)
    position_BM = rank_BM.argsort(dim=1)
    source_BS = complement(target_BM, nearest_BN.shape[1])
    joined_BS = position_BM.gather(1, nearest_BN.gather(1, source_BS))
    return grow_groups(
        target_BM, source_BS, joined_BS, cosine_BN.gather(1, source_BS), num_merged(source_BS.shape[1], merge_share)
    )
