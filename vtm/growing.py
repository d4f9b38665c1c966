"""Tokens to a merge tree: a base that covers them evenly, and what agglomeration makes of it.

Letters: B batch, N tokens of a clip, M groups of the base, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vtm.agglomeration import agglomerate, agglomerate_masked, is_complete
from vtm.budget import Budget
from vtm.coverage import coverage_plan
from vtm.errors import MergeError
from vtm.finite import check_finite
from vtm.plan import Grid, MergePlan, identity_plan, token_positions
from vtm.replay import Replayed, present
from vtm.sampling import even_ranking, gumbel_noise
from vtm.tree import MergeTree
from vtm.upload import to_device

DEFAULT_BASE = 0.2
"""Share of the tokens. A base of twice the groups takes four times the time for .001 at 5 % of the tokens and below."""
BASE_MARGIN = 1.25
"""Least ratio of the groups of a base to those of its finest cut: with no merges between them the tree adds nothing."""
FIDELITY_BASES = (DEFAULT_BASE, 0.5, 1.0)
"""Bases from which a wanted fidelity is sought, in turn."""
MOST_LEFT = 0.5
"""Share of the groups of the default base: where more are left, a finer base leaves 4 to 8 % fewer tokens."""


def base_for(keep: float) -> float:
    """The base, as a share of the tokens, of a tree whose finest cut keeps a share of them.

    Args:
        keep: that share, above 0 and at most 1.
    """
    return max(DEFAULT_BASE, min(1.0, BASE_MARGIN * keep))


@torch.no_grad()
def merge_tree(
    features_BNC: Tensor,
    *,
    grid: Grid,
    base: float | MergePlan = DEFAULT_BASE,
    weights: Tensor | None = None,
    max_gap_frames: int | None = None,
    seed: int | Sequence[int] = 0,
) -> MergeTree:
    """Decide how the tokens of a clip merge, for every number of tokens at once.

    Each clip is decided on its own, so that no bit depends on what shares its batch.

    Args:
        features_BNC: (B, N, C) tokens in t, y, x order, any float dtype; no gradient is taken.
        grid: T, H, W in patches, T·H·W = N.
        base: where the tree starts: share of the tokens, covered evenly (`vtm.coverage`), or a plan over the N tokens;
            1 starts from the tokens themselves.
        weights: (B, N) or (B, T, H, W), 0 or more: what each token counts in the fidelity that the tree keeps up, and
            so where it leaves more groups. All alike by default. `vtm.weights.weighted_mean` merges by them.
        max_gap_frames: groups of the base merge only where at most so many frames lie between the frames they span; 0
            makes groups that are as contiguous in time as the base's are.
        seed: of the base, as for `merge_plan`.

    Returns:
        The tree.

    Raises:
        MergeError: shapes do not fit; a setting is out of range; or, on a CPU, features or weights are not finite,
            a weight is negative, or a clip's are all 0. Elsewhere looking would make the host wait once more than
            the tree does: its base_fidelity is then not finite.
    """
    _check_features(features_BNC, grid, base)
    weights_BN = _checked_weights(weights, features_BNC)
    if max_gap_frames is not None and (max_gap_frames != int(max_gap_frames) or max_gap_frames < 0):
        raise MergeError(f"max_gap_frames is a whole number of frames, 0 or more, got {max_gap_frames}")
    seeds = [seed] * len(features_BNC) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(features_BNC):
        raise MergeError(f"give one seed, or one for each of the {len(features_BNC)} clips, got {len(seeds)}")
    trees = [
        _clip_tree(x_1NC, grid, base, clip, seeds[clip], weights_BN[clip], max_gap_frames)
        for clip, x_1NC in enumerate(features_BNC[:, None])
    ]
    return _stacked(trees)


def tree_of_fidelity(
    features_BNC: Tensor,
    *,
    grid: Grid,
    fidelity: float,
    weights: Tensor | None = None,
    max_gap_frames: int | None = None,
    seed: int | Sequence[int] = 0,
) -> MergeTree:
    """A tree whose base has a wanted fidelity in every clip, and as few groups as that takes.

    Grown from a finer base where the default one falls short, or where little is left to merge above it. Values are
    read on the host.

    Args:
        features_BNC: as for `merge_tree`, and so the others.
        grid: T, H, W.
        fidelity: mean cosine, weighted where there are weights; above 0 and below 1.
        weights: of the tokens.
        max_gap_frames: between what merges.
        seed: of the base.

    Raises:
        MergeError: as `merge_tree`; the fidelity is out of range.
    """
    if not 0 < fidelity < 1:
        raise MergeError(f"fidelity is a mean cosine above 0 and below 1, got {fidelity}")
    for base in FIDELITY_BASES:
        tree = merge_tree(features_BNC, grid=grid, base=base, weights=weights, max_gap_frames=max_gap_frames, seed=seed)
        # Zero tokens have no cosine, so that even tokens that are groups of their own may fall short.
        reached = min(fidelity, float(tree.base_fidelity.min()))
        cut = tree.coarsen(fidelity=reached)
        well_above = base > DEFAULT_BASE or cut.base.num_groups <= MOST_LEFT * tree.base.num_groups
        if base == 1 or (reached == fidelity and well_above):
            break
    return cut


def _clip_tree(
    x_1NC: Tensor, grid: Grid, base: float | MergePlan, clip: int, seed: int, weight_N: Tensor, gap: int | None
) -> MergeTree:
    """The tree of one clip, row `clip` of a base that is a plan."""
    if isinstance(base, MergePlan):
        row = slice(clip, clip + 1)
        plan = MergePlan(base.group[row], base.num_groups, base.targets[row])
        return _above(plan, x_1NC, weight_N, grid, gap)
    total, device = x_1NC.shape[1], x_1NC.device
    count = Budget(keep=base).targets(total)
    if count == total:
        return _above(identity_plan(1, total, device), x_1NC, weight_N, grid, gap)
    drawn = even_ranking(grid, [seed], device), gumbel_noise([seed], total, device)
    if device.type == "cpu" or gap is not None:
        return _above(_even_base(x_1NC, count, *drawn), x_1NC, weight_N, grid, gap)
    made = _GROWN(x_1NC, weight_N, *drawn, count=count)
    group_1N, target_1M, parent_M, loss_M, fidelity_1, weight_1 = (present(x) for x in made[:-1])
    plan = MergePlan(group_1N, count, target_1M)
    if not is_complete(made[-1]):
        return _above(plan, x_1NC, weight_N, grid, gap)
    return MergeTree(plan, parent_M[None], loss_M[None], fidelity_1, weight_1)


def _grown(x_1NC: Tensor, weight_N: Tensor, ranking_1N: Tensor, noise_1N: Tensor, *, count: int) -> tuple[Tensor, ...]:
    """Base and tree of one clip, where no value is looked at."""
    base = _even_base(x_1NC, count, ranking_1N, noise_1N)
    sum_MC, count_M, fidelity_1, weight_1 = _sums(base, x_1NC, weight_N)
    parent_M, loss_M, complete = agglomerate_masked(sum_MC, count_M)
    return base.group, base.targets, parent_M, loss_M, fidelity_1, weight_1, complete


_GROWN = Replayed(_grown)


def _even_base(x_1NC: Tensor, count: int, ranking_1N: Tensor, noise_1N: Tensor) -> MergePlan:
    # The tree gains what Lloyd steps would gain in the base: without them it is as good, and a third faster.
    return coverage_plan(x_1NC, count, ranking_1N, noise_1N, lloyd_steps=0)


def _above(base: MergePlan, x_1NC: Tensor, weight_N: Tensor, grid: Grid, max_gap_frames: int | None) -> MergeTree:
    """The tree over the groups of a base."""
    sum_MC, count_M, fidelity_1, weight_1 = _sums(base, x_1NC, weight_N)
    frames_M2 = None if max_gap_frames is None else _spans(base, grid)
    parent_M, loss_M = agglomerate(sum_MC, count_M, frames_M2, max_gap_frames)
    return MergeTree(base, parent_M[None], loss_M[None], fidelity_1, weight_1)


def _sums(base: MergePlan, x_1NC: Tensor, weight_N: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each group (M, C) Σ w·u and (M,) Σ w; of the clip (1,) float64 mean cosine and (1,) float64 Σ w."""
    weight_1N1 = weight_N[None, :, None]
    unit_1NC = F.normalize(x_1NC.to(torch.promote_types(x_1NC.dtype, torch.float32)), dim=2)
    sum_MC = base.sum(unit_1NC * weight_1N1)[0]
    weight_1 = weight_N.double().sum()[None]
    kept_1 = torch.linalg.vector_norm(sum_MC.double(), dim=1).sum()[None]
    return sum_MC, base.sum(weight_1N1)[0, :, 0], kept_1 / weight_1, weight_1


def _spans(base: MergePlan, grid: Grid) -> Tensor:
    """(M, 2) int64: first and last frame of each group of one clip."""
    frame_N = token_positions(grid, base.group.device)[:, 0]
    empty_M = frame_N.new_zeros(base.num_groups)
    ends = [
        empty_M.scatter_reduce(0, base.group[0], frame_N, reduce, include_self=False) for reduce in ("amin", "amax")
    ]
    return torch.stack(ends, dim=1)


def _stacked(trees: Sequence[MergeTree]) -> MergeTree:
    if len(trees) == 1:
        return trees[0]
    return MergeTree(
        base=MergePlan.cat([tree.base for tree in trees]),
        parents=torch.cat([tree.parents for tree in trees]),
        losses=torch.cat([tree.losses for tree in trees]),
        base_fidelity=torch.cat([tree.base_fidelity for tree in trees]),
        weight=torch.cat([tree.weight for tree in trees]),
    )


def _check_features(x_BNC: Tensor, grid: Grid, base: float | MergePlan) -> None:
    if x_BNC.dim() != 3 or 0 in x_BNC.shape:
        raise MergeError(f"features have shape (B, N, C), at least one of each, got {tuple(x_BNC.shape)}")
    if math.prod(grid) != x_BNC.shape[1]:
        raise MergeError(f"grid {tuple(grid)} does not hold the {x_BNC.shape[1]} tokens of the features")
    if isinstance(base, MergePlan) and base.group.shape != x_BNC.shape[:2]:
        raise MergeError(f"the base merges {tuple(base.group.shape)} tokens, the features are {tuple(x_BNC.shape[:2])}")
    check_finite("features", x_BNC)


def _checked_weights(weights: Tensor | None, x_BNC: Tensor) -> Tensor:
    """(B, N) in the dtype of sums."""
    precise = torch.promote_types(x_BNC.dtype, torch.float32)
    if weights is None:
        return torch.ones(x_BNC.shape[:2], dtype=precise, device=x_BNC.device)
    weights_BN = to_device(weights.detach().flatten(1), x_BNC.device).to(precise)
    if weights_BN.shape != x_BNC.shape[:2]:
        raise MergeError(
            f"weights have shape {tuple(weights.shape)}, expected one value for each of the tokens of "
            f"{tuple(x_BNC.shape[:2])}"
        )
    check_finite("weights", weights_BN)
    if x_BNC.device.type == "cpu":
        if float(weights_BN.min()) < 0:
            raise MergeError(f"weights are 0 or more, got {float(weights_BN.min())} as the least of them")
        if float(weights_BN.sum(dim=1).min()) == 0:
            raise MergeError("a clip's weights are all 0: nothing says what is to be kept")
    return weights_BN
