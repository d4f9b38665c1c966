"""Which tokens of a window are targets, for every strategy of the network, at counts that the shape alone decides.

Inside the network tokens lie on no grid after the first merge, so the strategies go by a cue: one value a token that is
merged along with it. Nothing here passes a gradient.

Letters: B windows, N tokens of a window, M targets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtm.network.config import NetworkStrategy
from vtm.partition import Area, area_ranking, strided_targets
from vtm.plan import Grid, MergePlan
from vtm.sampling import highest, sampled_targets


@torch.no_grad()
def choose_targets(
    strategy: NetworkStrategy, shape: tuple[int, int], partition_factor: int, score_BN: Tensor, noise_BN: Tensor
) -> Tensor:
    """Choose M = ceil(N / γ) targets a window (equations 1, 2 and 6, and section 3.4).

    Args:
        strategy: any but `none`.
        shape: B, N.
        partition_factor: γ.
        score_BN: (B, N) float: the ranks of `area_cue` (`center`, `boundary`), the magnitude of motion (`motion`), the
            saliency (`learnable`); not read by `naive`.
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
        return highest(score_BN, count)
    return sampled_targets(score_BN, count, noise_BN)


def area_cue(area: Area, plan: MergePlan, grid: Grid) -> Tensor:
    """Rank the groups by the position of their own target.

    Args:
        area: `center` or `boundary`, as `vtm.partition.area_ranking` has them.
        plan: from the source patches to M groups.
        grid: T, H, W of the source patches.

    Returns:
        (B, M) float64, which holds the ranks exactly.
    """
    return area_ranking(area, grid, plan.targets.device).double()[plan.targets]
