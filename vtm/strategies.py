"""The strategies of Lee et al. 2024 (arXiv:2410.23782, section 3.3), and ours, behind one call.

| strategy | targets |
| --- | --- |
| none | nothing merges |
| naive | every γ-th token (equation 1) |
| center | half of them from the central H/2 × W/2 (section 3.3) |
| boundary | half of them from the outermost quarter of the picture |
| motion | drawn with probability softmax(motion) (equation 6) |
| saliency | drawn with probability softmax(tanh(standardised saliency)): for scores of any scale |
| learnable | drawn with probability softmax(saliency): for a trained scorer's tanh scores (section 3.4) |
| coverage | ours: half spread evenly, half drawn where that covers badly, then refined (`vtm.coverage`) |

Letters: B batch, N tokens of a clip, M targets, C and D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from vtm.budget import Amount, Budget
from vtm.coverage import coverage_plan
from vtm.cues import Cues, token_scores
from vtm.merge import plan_from_targets
from vtm.partition import Area, area_targets, even_targets, strided_targets
from vtm.plan import Grid, MergeError, MergePlan, identity_plan
from vtm.sampling import gumbel_noise, sampled_targets, spread_ranking
from vtm.windows import join_windows, split_windows

if TYPE_CHECKING:
    from typing import Unpack

Strategy = Literal["none", "naive", "center", "boundary", "motion", "saliency", "learnable", "coverage"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

Planner = Callable[[Cues, Grid, Budget], MergePlan]
"""Merges each row of the batch as a whole."""


def merge_plan(
    keys_BND: Tensor,
    *,
    grid: Grid,
    strategy: Strategy = "naive",
    seed: int | Sequence[int] = 0,
    motion: Tensor | None = None,
    saliency: Tensor | None = None,
    features: Tensor | None = None,
    **amount: Unpack[Amount],
) -> MergePlan:
    """Decide how the tokens of a clip merge.

    Except for `coverage`, each source joins the target nearest to it by the cosine of the keys (equation 3).

    Args:
        keys_BND: (B, N, D) keys of the tokens in t, y, x order, any float dtype; no gradient is taken.
        grid: T, H, W in patches, T·H·W = N.
        strategy: where the targets lie; the module has the table.
        seed: of all that is drawn, one for every clip or one each; a seed gives the same draw on every device.
        motion: (B, T, H, W) or (B, N) motion magnitudes.
        saliency: (B, T, H, W) or (B, N) token scores.
        features: (B, N, C) the tokens that will be merged, which `coverage` groups by; the keys by default.
        **amount: how far, as `vtm.budget.Budget` has it: one of `partition_factor` (γ), `keep` (a share) and
            `num_tokens`; and `merge_share` (R as a share of the sources) and `window_frames` (L_i).

    Returns:
        The plan, its groups ordered by the position of their target.

    Raises:
        MergeError: a setting is out of range, missing, or excluded by another.
    """
    _check(keys_BND, features, strategy, grid)
    if strategy == "none":
        _check_nothing_asked(amount)
        return identity_plan(len(keys_BND), keys_BND.shape[1], keys_BND.device)
    budget = Budget(**amount)
    seeds = [seed] * len(keys_BND) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(keys_BND):
        raise MergeError(f"give one seed, or one for each of the {len(keys_BND)} clips, got {len(seeds)}")
    drawn, total, device = strategy in DRAWN, keys_BND.shape[1], keys_BND.device
    cues = Cues(
        keys=keys_BND,
        features=keys_BND if features is None else features,
        scores=token_scores(strategy, keys_BND, motion, saliency),
        noise=gumbel_noise(seeds, total, device) if drawn else None,
        spread=spread_ranking(grid, seeds, device) if strategy == "coverage" else None,
    )
    planner = PLANNERS[strategy]
    if budget.window_frames is None:
        return planner(cues, grid, budget)
    runs = split_windows(grid, budget)
    plans = [planner(cues.of(run, grid[1] * grid[2]), (run.frames, *grid[1:]), run.budget) for run in runs]
    return join_windows(plans, len(keys_BND))


def _naive(cues: Cues, grid: Grid, budget: Budget) -> MergePlan:
    total, device = cues.keys.shape[1], cues.keys.device
    if budget.stride is None:
        return _around(even_targets(total, budget.targets(total), device), cues, budget)
    return _around(strided_targets(total, budget.stride, device), cues, budget)


def _half_from(area: Area, cues: Cues, grid: Grid, budget: Budget) -> MergePlan:
    count = budget.targets(cues.keys.shape[1])
    return _around(area_targets(area, grid, count, budget.stride, cues.keys.device), cues, budget)


def _sampled(cues: Cues, grid: Grid, budget: Budget) -> MergePlan:
    assert cues.scores is not None, "the strategy reads scores"
    assert cues.noise is not None, "the strategy draws"
    target_BM = sampled_targets(cues.scores, budget.targets(cues.keys.shape[1]), cues.noise)
    return plan_from_targets(cues.keys, target_BM, budget.merge_share)


def _covering(cues: Cues, grid: Grid, budget: Budget) -> MergePlan:
    assert cues.spread is not None, "coverage reads ranks"
    assert cues.noise is not None, "coverage draws"
    count = budget.targets(cues.keys.shape[1])
    return coverage_plan(cues.features, count, cues.spread, cues.noise, budget.merge_share)


def _around(target_M: Tensor, cues: Cues, budget: Budget) -> MergePlan:
    """The same targets in every row."""
    return plan_from_targets(cues.keys, target_M.expand(len(cues.keys), -1), budget.merge_share)


PLANNERS: dict[Strategy, Planner] = {
    "naive": _naive,
    "center": partial(_half_from, "center"),
    "boundary": partial(_half_from, "boundary"),
    "motion": _sampled,
    "saliency": _sampled,
    "learnable": _sampled,
    "coverage": _covering,
}
DRAWN: tuple[Strategy, ...] = ("motion", "saliency", "learnable", "coverage")


def _check(keys_BND: Tensor, features_BNC: Tensor | None, strategy: str, grid: Grid) -> None:
    if strategy not in STRATEGIES:
        raise MergeError(f"unknown strategy {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    if keys_BND.dim() != 3:
        raise MergeError(f"keys have shape (B, N, D), got {tuple(keys_BND.shape)}")
    if grid[0] * grid[1] * grid[2] != keys_BND.shape[1]:
        raise MergeError(f"grid {tuple(grid)} does not hold the {keys_BND.shape[1]} tokens of the keys")
    if features_BNC is not None and features_BNC.shape[:2] != keys_BND.shape[:2]:
        raise MergeError(f"features {tuple(features_BNC.shape)} and keys {tuple(keys_BND.shape)} differ in tokens")


def _check_nothing_asked(amount: Amount) -> None:
    for name in ("partition_factor", "keep", "num_tokens"):
        if (value := amount.get(name)) is not None:
            raise MergeError(f"strategy none merges nothing, so it takes no {name}, got {value}")
