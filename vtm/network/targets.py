"""Which tokens of a window are targets, for every strategy of the network, at counts that the shape alone decides.

Inside the network tokens lie on no grid after the first merge, so the strategies go by a cue: one value a token that is
merged along with it. Nothing here passes a gradient.

Letters: B windows, N tokens of a window, M targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vtm.network.config import NetworkStrategy
from vtm.partition import strided_targets
from vtm.plan import Grid, MergePlan, token_positions


@torch.no_grad()
def choose_targets(
    strategy: NetworkStrategy, shape: tuple[int, int], partition_factor: int, score_BN: Tensor, noise_BN: Tensor
) -> Tensor:
    """Choose M = ceil(N / γ) targets a window (equations 1, 2 and 6, and section 3.4).

    Args:
        strategy: any but `none`.
        shape: B, N.
        partition_factor: γ.
        score_BN: (B, N) float: 1 in the centre and 0 outside (`center`, `boundary`), the magnitude of motion
            (`motion`), the saliency (`learnable`); not read by `naive`.
        noise_BN: (B, N) standard Gumbel noise, read by the sampled strategies.

    Returns:
        (B, M) int64, increasing in each row.
    """
    windows, tokens = shape
    count = -(-tokens // partition_factor)
    if strategy == "naive":
        return strided_targets(tokens, partition_factor).to(score_BN.device).expand(windows, -1)
    if strategy in ("center", "boundary"):
        inside_BN = score_BN > 0.5 if strategy == "center" else score_BN <= 0.5
        chosen_BN = _half_and_half(inside_BN, count)
        return chosen_BN.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
    # Gumbel-top-k: the k largest of score + noise are k draws without replacement from softmax(score).
    return (score_BN.float() + noise_BN).topk(count, dim=1).indices.sort(dim=1).values


def _half_and_half(inside_BN: Tensor, count: int) -> Tensor:
    """Mark `count` tokens: half of them spread evenly over the inside, the others over the outside.

    On a clip's own grid that is the paper's factor γ/2 in the quarter and 3γ/2 on the rest. Where one side has fewer
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


def gumbel_noise(seeds: Sequence[int], tokens: int, device: torch.device) -> Tensor:
    """(B, tokens) float32 standard Gumbel noise: row b depends on seeds[b] alone, on every device.

    Args:
        seeds: one a clip; what identifies the clip and the block.
        tokens: N.
        device: where the noise is wanted; it is drawn on the CPU.
    """
    rows = [torch.empty(tokens).exponential_(generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return -torch.stack(rows).log().to(device, non_blocking=True)


def central_cue(plan: MergePlan, grid: Grid) -> Tensor:
    """(B, M) float32: 1 where a group's target lies in the central H/2 × W/2 of its frame."""
    _, rows, columns = grid
    position_N3 = token_positions(grid, plan.targets.device)
    inside_N = torch.ones(len(position_N3), dtype=torch.bool, device=position_N3.device)
    for axis, side in ((1, rows), (2, columns)):
        start = (side - side // 2) // 2
        inside_N &= (position_N3[:, axis] >= start) & (position_N3[:, axis] < start + side // 2)
    return inside_N.float()[plan.targets]
