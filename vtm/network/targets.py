"""Which tokens of a window are targets, for every strategy of the network, at counts that the shape alone decides.

Inside the network tokens lie on no grid after the first merge, so the strategies go by a cue: one value a token that is
merged along with it. Nothing here passes a gradient.

Letters: B windows, N tokens of a window, M targets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtm.network.config import NetworkStrategy
from vtm.partition import Area, area_mask, strided_targets
from vtm.plan import Grid, MergePlan
from vtm.sampling import sampled_targets


@torch.no_grad()
def choose_targets(
    strategy: NetworkStrategy, shape: tuple[int, int], partition_factor: int, score_BN: Tensor, noise_BN: Tensor
) -> Tensor:
    """Choose M = ceil(N / γ) targets a window (equations 1, 2 and 6, and section 3.4).

    Args:
        strategy: any but `none`.
        shape: B, N.
        partition_factor: γ.
        score_BN: (B, N) float: 1 in the area that half of the targets come from and 0 outside (`center`, `boundary`),
            the magnitude of motion (`motion`), the saliency (`learnable`); not read by `naive`.
        noise_BN: (B, N) standard Gumbel noise, read by the sampled strategies.

    Returns:
        (B, M) int64, increasing in each row.
    """
    windows, tokens = shape
    # Not -(-tokens // γ): a compiler that takes the size as a symbol stumbles over its negative.
    count = (tokens + partition_factor - 1) // partition_factor
    if strategy == "naive":
        return strided_targets(tokens, partition_factor, score_BN.device).expand(windows, -1)
    if strategy in ("center", "boundary"):
        chosen_BN = _half_and_half(score_BN > 0.5, count)
        return chosen_BN.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return sampled_targets(score_BN, count, noise_BN)


def _half_and_half(inside_BN: Tensor, count: int) -> Tensor:
    """Mark `count` tokens: half of them spread evenly over the inside, the others over the outside.

    Where the inside is a quarter, that is the paper's factor γ/2 there and 3γ/2 on the rest. Where one side has fewer
    tokens than its half, the other takes over.
    """
    tokens = inside_BN.shape[1]
    num_inside_B1 = inside_BN.sum(dim=1, keepdim=True)
    fewest_B1 = (count - (tokens - num_inside_B1)).clamp_min(0)
    inside_count_B1 = num_inside_B1.clamp_max(-(-count // 2)).maximum(fewest_B1)
    inside_marks_BN = _evenly_marked(inside_BN, inside_count_B1, num_inside_B1)
    outside_marks_BN = _evenly_marked(~inside_BN, count - inside_count_B1, tokens - num_inside_B1)
    return inside_marks_BN | outside_marks_BN


def _evenly_marked(member_BN: Tensor, count_B1: Tensor, num_members_B1: Tensor) -> Tensor:
    # The members of rank r with (r · count) mod num < count are exactly `count`, evenly spaced from the first on.
    rank_BN = member_BN.cumsum(dim=1) - 1
    return member_BN & ((rank_BN * count_B1) % num_members_B1.clamp_min(1) < count_B1)


def area_cue(area: Area, plan: MergePlan, grid: Grid) -> Tensor:
    """Which groups belong to the area that half of the targets come from, by the position of their own target.

    Args:
        area: `center` or `boundary`, as `vtm.partition.area_mask` has them.
        plan: from the source patches to M groups.
        grid: T, H, W of the source patches.

    Returns:
        (B, M) float32: 1 in the area, 0 elsewhere.
    """
    return area_mask(area, grid, plan.targets.device).float()[plan.targets]
