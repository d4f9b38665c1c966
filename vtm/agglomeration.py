"""Groups merged pair by pair, the cheapest first, until one is left: what a merge tree is made of.

For unit tokens u of weight w and S_g = Σ w·u over a group, Σ w·cos(u, mean of the group) is |S_g|. So merging groups
g and h costs, in exactly the quantity that fidelity is the mean of,

    loss(g, h) = |S_g| + |S_h| - |S_g + S_h|,

which the sums alone decide. In each round every group finds its nearest, the group with which a merge loses least, and
all mutually nearest pairs merge. On a CPU merged groups are dropped after each round. On a GPU that would make the host
wait for a size: merged groups are masked, and dropped by a schedule of sizes that is fixed beforehand, so that all
rounds together are one CUDA graph, after which one value is read.

Letters: M groups at the start, K of them left, C channels, J channels of jitter, A = C + J.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vtm.replay import Replayed, present

BLOCK_PAIRS = {"cpu": 1 << 19, "cuda": 1 << 27}
"""Losses in memory at a time, by device."""
MAX_ROUNDS = 96
"""Real clips take 35 to 45. Groups that are left after so many, in artificial clips alone, merge in order of index."""
SHRINKING = ((4, 0.68), (8, 0.42), (12, 0.26), (16, 0.17), (20, 0.11), (26, 0.06), (34, 0.025))
"""On a GPU: rounds, and the share of the M rows that is kept after them. Two clips of a film, on which it was chosen,
and three of fixed cameras had at most three quarters of that left. A clip with more is merged again with all rows."""
LEAST_ROWS = 64
JITTER_CHANNELS = 8
JITTER = 2.0**-10
"""Length of a group's jitter, relative to its direction. Of equal tokens all would have the first as their nearest, so
that one pair merged a round. A jitter that depends on the index alone makes their losses differ by about 1e-6."""
LEAST_COUNT = 1e-3
"""Share of the mean count by which a group of weight 0 jitters."""


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """The groups that are left."""

    index_K: Tensor
    """int64, which of the M each grew from."""
    alive_K: Tensor
    """bool; all of them on a CPU."""
    sum_KC: Tensor
    """float64 S."""
    norm_K: Tensor
    """float64 |S|."""
    height_K: Tensor
    """float32, of the last merge; 0 before any."""
    compared_KA: Tensor
    """float32 (K, C + J): S with its jitter, by which losses are compared."""
    first_K: Tensor
    """int64, first frame spanned."""
    last_K: Tensor


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
        return _merge_counted(_initial_groups(sum_MC, count_M, frames_M2), max_gap_frames)
    parent_M, loss_M, complete = _SCHEDULED(sum_MC, count_M, frames_M2, max_gap_frames=max_gap_frames)
    if not is_complete(complete):
        return agglomerate_masked(sum_MC, count_M, frames_M2, max_gap_frames=max_gap_frames, shrinking=())[:2]
    return present(parent_M), present(loss_M)


def _merge_counted(groups: _Groups, max_gap_frames: int | None) -> tuple[Tensor, Tensor]:
    """All rounds, each on the groups that the round before left."""
    parent_M, height_M = _nothing_merged(groups)
    # Merged in place, and some of it is the caller's.
    groups = _Groups(*(x.clone() for x in _tensors(groups)))
    for _ in range(min(MAX_ROUNDS, len(parent_M) - 1)):
        nearest_K, loss_K = _nearest(groups, None, max_gap_frames)
        groups = _merge_pairs(groups, nearest_K, loss_K, parent_M, height_M)
        if len(groups.index_K) == 1:
            break
    into_K, at_K = _merge_rest(groups)
    parent_M, height_M = _record(groups, into_K, at_K, parent_M, height_M)
    return parent_M, _distinct(height_M)


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
    groups = _initial_groups(sum_MC, count_M, frames_M2)
    total = len(groups.index_K)
    parent_M, height_M = _nothing_merged(groups)
    left, complete = dict(shrinking), torch.ones((), dtype=torch.bool, device=parent_M.device)
    for finished in range(min(MAX_ROUNDS, total - 1)):
        if finished in left:
            groups, fits = _shrunk(groups, max(LEAST_ROWS, math.ceil(left[finished] * total)))
            complete = complete & fits
        nearest_K, loss_K = _nearest(groups, groups.alive_K, max_gap_frames)
        groups, into_K, at_K = _merge_mutual(groups, nearest_K, loss_K)
        parent_M, height_M = _record(groups, into_K, at_K, parent_M, height_M)
    into_K, at_K = _merge_rest(groups)
    parent_M, height_M = _record(groups, into_K, at_K, parent_M, height_M)
    return parent_M, _distinct(height_M), complete


_SCHEDULED = Replayed(agglomerate_masked)


def is_complete(flag: Tensor | None) -> bool:
    """The third value of `agglomerate_masked`, for which the host waits."""
    return bool(flag)


def _tensors(groups: _Groups) -> tuple[Tensor, ...]:
    return tuple(getattr(groups, name) for name in _Groups.__slots__)


def _nothing_merged(groups: _Groups) -> tuple[Tensor, Tensor]:
    return groups.index_K.clone(), torch.full_like(groups.height_K, torch.inf)


def _shrunk(groups: _Groups, rows: int) -> tuple[_Groups, Tensor]:
    """As many rows, with the groups that are alive first, in order; and whether all of these are among them."""
    if rows >= len(groups.index_K):
        return groups, torch.ones((), dtype=torch.bool, device=groups.index_K.device)
    # A stable sort keeps the order, with a size known beforehand.
    first_L = (~groups.alive_K).to(torch.uint8).argsort(stable=True)[:rows]
    return _Groups(*(x.index_select(0, first_L) for x in _tensors(groups))), groups.alive_K.sum() <= rows


def _initial_groups(sum_MC: Tensor, count_M: Tensor, frames_M2: Tensor | None) -> _Groups:
    total, device = len(sum_MC), sum_MC.device
    index_M = torch.arange(total, device=device)
    count_M = count_M.double()
    jitter_scale_M1 = torch.maximum(count_M, LEAST_COUNT * count_M.mean())[:, None]
    jitter_MJ = JITTER * jitter_scale_M1 * _jitter(total, device)
    sum_MC = sum_MC.double()
    frames_M2 = index_M.new_zeros(total, 2) if frames_M2 is None else frames_M2
    return _Groups(
        index_K=index_M,
        alive_K=torch.ones(total, dtype=torch.bool, device=device),
        sum_KC=sum_MC,
        norm_K=torch.linalg.vector_norm(sum_MC, dim=1),
        height_K=torch.zeros(total, device=device),
        compared_KA=torch.cat((sum_MC, jitter_MJ), dim=1).float(),
        first_K=frames_M2[:, 0],
        last_K=frames_M2[:, 1],
    )


def _jitter(total: int, device: torch.device) -> Tensor:
    """(M, J) float64 in [-1, 1), uniform: a hash of the index."""
    bits = torch.arange(total * JITTER_CHANNELS, device=device).view(total, JITTER_CHANNELS)
    for factor, shift in ((0x9E3779B1, 15), (0x85EBCA77, 13)):
        bits = (bits * factor) & 0xFFFFFFFF
        bits = bits ^ (bits >> shift)
    return bits.double() / 2**31 - 1


def _nearest(groups: _Groups, alive_K: Tensor | None, max_gap_frames: int | None) -> tuple[Tensor, Tensor]:
    """The group with which a merge loses least, the first of equals, and that loss; (K,) each.

    Each pair is computed once, so that both groups get the same loss to the bit.
    """
    compared_KA = groups.compared_KA
    total, device = len(compared_KA), compared_KA.device
    norm_K = torch.linalg.vector_norm(compared_KA, dim=1)
    # |S_g + S_h|² - (|S_g| + |S_h|)² = 2·(S_g·S_h - |S_g|·|S_h|), at most 0, as one product.
    left_KA = torch.cat((2 * compared_KA, -2 * norm_K[:, None]), dim=1)
    right_KA = torch.cat((compared_KA, norm_K[:, None]), dim=1)
    loss_K = torch.full((total,), torch.inf, device=device)
    nearest_K = torch.zeros(total, dtype=torch.int64, device=device)
    rows = max(1, BLOCK_PAIRS["cpu" if compared_KA.device.type == "cpu" else "cuda"] // total)
    for start in range(0, total, rows):
        end = min(start + rows, total)
        difference = left_KA[start:end] @ right_KA[start:].T
        both = norm_K[start:end, None] + norm_K[start:]
        loss = both - difference.addcmul_(both, both).clamp_min_(0).sqrt_()
        loss.diagonal().fill_(torch.inf)
        if alive_K is not None:
            loss.masked_fill_(~(alive_K[start:end, None] & alive_K[start:]), torch.inf)
        if max_gap_frames is not None:
            loss.masked_fill_(_gap(groups, start, end) > max_gap_frames, torch.inf)
        least, column = loss.min(dim=1)
        _take_lesser(loss_K[start:end], nearest_K[start:end], least, column + start)
        if end < total:
            least, row = loss[:, end - start :].min(dim=0)
            _take_lesser(loss_K[end:], nearest_K[end:], least, row + start)
    return nearest_K, loss_K


def _take_lesser(loss_K: Tensor, nearest_K: Tensor, offered_K: Tensor, by_K: Tensor) -> None:
    """Take, in place, each offered loss that is less than the one so far."""
    less_K = offered_K < loss_K
    nearest_K.copy_(torch.where(less_K, by_K, nearest_K))
    loss_K.copy_(torch.where(less_K, offered_K, loss_K))


def _gap(groups: _Groups, start: int, end: int) -> Tensor:
    """Frames between the spans of two groups; negative where they overlap."""
    later_first = torch.maximum(groups.first_K[start:end, None], groups.first_K[start:])
    return later_first - torch.minimum(groups.last_K[start:end, None], groups.last_K[start:]) - 1


def _merge_mutual(groups: _Groups, nearest_K: Tensor, loss_K: Tensor) -> tuple[_Groups, Tensor, Tensor]:
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


def _merge_pairs(groups: _Groups, nearest_K: Tensor, loss_K: Tensor, parent_M: Tensor, height_M: Tensor) -> _Groups:
    """As `_merge_mutual`, to the bit, and as `_record`, in place: the pairs alone are computed, and dropped at once.

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
    return _Groups(*(x.index_select(0, left_L) for x in _tensors(groups)))


def _merge_rest(groups: _Groups) -> tuple[Tensor, Tensor]:
    """Merge all groups that are left into the first of them, those of high index first; as `_merge_mutual`."""
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


def _record(groups: _Groups, into_K: Tensor, at_K: Tensor, parent_M: Tensor, height_M: Tensor) -> tuple[Tensor, Tensor]:
    merged_K = into_K != torch.arange(len(into_K), device=into_K.device)
    index_K = groups.index_K
    parent_M = parent_M.scatter(0, index_K, torch.where(merged_K, index_K[into_K], parent_M[index_K]))
    return parent_M, height_M.scatter(0, index_K, torch.where(merged_K, at_K, height_M[index_K]))


def _above(x: Tensor) -> Tensor:
    """The next greater float32, and never a denormal one: some machines flush those to 0."""
    return torch.nextafter(x, torch.full_like(x, torch.inf)).clamp_min(torch.finfo(torch.float32).tiny)


def _distinct(height_M: Tensor) -> Tensor:
    """Raise equal heights by as little as float32 can, so that they sort alike in whatever order the groups are."""
    sorted_M, order_M = height_M.sort(stable=True)
    finite_M = sorted_M < torch.inf
    # Positive floats are ordered as their bits are.
    step_M = torch.arange(len(height_M), device=height_M.device, dtype=torch.int32)
    raised_M = ((sorted_M.view(torch.int32) - step_M).cummax(dim=0).values + step_M).view(torch.float32)
    return torch.empty_like(height_M).scatter_(0, order_M, torch.where(finite_M, raised_M, sorted_M))
