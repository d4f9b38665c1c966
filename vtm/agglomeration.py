"""Groups merged pair by pair, the cheapest first, until one is left: what a merge tree is made of.

For unit tokens u of weight w and S_g = Σ w·u over a group, Σ w·cos(u, mean of the group) is |S_g|. So merging groups
g and h costs, in exactly the quantity that fidelity is the mean of,

    loss(g, h) = |S_g| + |S_h| - |S_g + S_h|,

which the sums alone decide. In each round every group finds its nearest, the group with which a merge loses least, and
all mutually nearest pairs merge. On a CPU merged groups are dropped after each round. On a GPU that would make the host
wait for a size: merged groups are masked, and dropped by a schedule of sizes that is fixed beforehand, so that all
rounds together are one CUDA graph, after which one value is read.

Letters: M groups at the start, K of them left, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vtm.merge_groups import Groups, first_alive, initial_groups, tensors_of
from vtm.nearest_groups import nearest_groups
from vtm.pair_merges import distinct, merge_mutual, merge_pairs, merge_rest, nothing_merged, recorded
from vtm.replay import Replayed, present

MAX_ROUNDS = 96
"""Real clips take 35 to 45. Groups that are left after so many, in artificial clips alone, merge in order of index."""
SHRINKING = ((4, 0.68), (8, 0.42), (12, 0.26), (16, 0.17), (20, 0.11), (26, 0.06), (34, 0.025))
"""On a GPU: rounds, and the share of the M rows that is kept after them. Two clips of a film, on which it was chosen,
and three of fixed cameras had at most three quarters of that left. A clip with more is merged again with all rows."""
LEAST_ROWS = 64


@torch.no_grad()
def agglomerate(
    sum_MC: Tensor, count_M: Tensor, frames_M2: Tensor | None = None, max_gap_frames: int | None = None
) -> tuple[Tensor, Tensor]:
    """Merge the groups of one clip down to one.

    Args:
        sum_MC: (M, C) S of each group, any float dtype, finite.
        count_M: (M,) weight of each group's tokens, Σ w, not all 0.
        frames_M2: (M, 2) int64 first and last frame of each group; needed with `max_gap_frames`.
        max_gap_frames: groups merge only where at most so many frames lie between the spans of frames of the two.

    Returns:
        The parent of each group, (M,) int64: the index of the group it merges into, the root's its own. And the loss of
        that merge, (M,) float32: distinct, growing along the parents, and infinite for the root.
    """
    if sum_MC.device.type == "cpu":
        return _merge_counted(initial_groups(sum_MC, count_M, frames_M2), max_gap_frames)
    parent_M, loss_M, complete = _SCHEDULED(sum_MC, count_M, frames_M2, max_gap_frames=max_gap_frames)
    if not is_complete(complete):
        return agglomerate_masked(sum_MC, count_M, frames_M2, max_gap_frames=max_gap_frames, shrinking=())[:2]
    return present(parent_M), present(loss_M)


def _merge_counted(groups: Groups, max_gap_frames: int | None) -> tuple[Tensor, Tensor]:
    """All rounds, each on the groups that the round before left."""
    parent_M, height_M = nothing_merged(groups)
    # Merged in place, and some of it is the caller's.
    groups = Groups(*(x.clone() for x in tensors_of(groups)))
    for _ in range(min(MAX_ROUNDS, len(parent_M) - 1)):
        nearest_K, loss_K = nearest_groups(groups, None, max_gap_frames)
        groups = merge_pairs(groups, nearest_K, loss_K, parent_M, height_M)
        if len(groups.index_K) == 1:
            break
    into_K, at_K = merge_rest(groups)
    parent_M, height_M = recorded(groups, into_K, at_K, parent_M, height_M)
    return parent_M, distinct(height_M)


def agglomerate_masked(
    sum_MC: Tensor,
    count_M: Tensor,
    frames_M2: Tensor | None = None,
    *,
    max_gap_frames: int | None = None,
    shrinking: tuple[tuple[int, float], ...] = SHRINKING,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `agglomerate`, with shapes that depend on no value.

    Args:
        sum_MC: as for `agglomerate`, and so the others.
        count_M: weights.
        frames_M2: first and last frames.
        max_gap_frames: between the spans.
        shrinking: as SHRINKING.

    Returns:
        Parents and losses; and a bool tensor: whether no group was dropped before it was merged. If one was, the others
        are of no use.
    """
    groups = initial_groups(sum_MC, count_M, frames_M2)
    total = len(groups.index_K)
    parent_M, height_M = nothing_merged(groups)
    left, complete = dict(shrinking), torch.ones((), dtype=torch.bool, device=parent_M.device)
    for finished in range(min(MAX_ROUNDS, total - 1)):
        if finished in left:
            groups, fits = first_alive(groups, max(LEAST_ROWS, math.ceil(left[finished] * total)))
            complete = complete & fits
        nearest_K, loss_K = nearest_groups(groups, groups.alive_K, max_gap_frames)
        groups, into_K, at_K = merge_mutual(groups, nearest_K, loss_K)
        parent_M, height_M = recorded(groups, into_K, at_K, parent_M, height_M)
    into_K, at_K = merge_rest(groups)
    parent_M, height_M = recorded(groups, into_K, at_K, parent_M, height_M)
    return parent_M, distinct(height_M), complete


_SCHEDULED = Replayed(agglomerate_masked)


def is_complete(flag: Tensor | None) -> bool:
    """The third value of `agglomerate_masked`, for which the host waits."""
    return bool(flag)
