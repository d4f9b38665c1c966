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
| coverage | ours: half evenly in space and time, half drawn where that covers badly, then refined (`vtm.coverage`) |

Letters: B batch, N tokens of a clip, M targets, C and D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from vtm.budget import Budget, check_merge
from vtm.coverage import coverage_plan
from vtm.errors import MergeError
from vtm.finite import check_finite
from vtm.merge import matched_plan
from vtm.partition import Area, area_ranking, even_targets, strided_targets
from vtm.plan import Grid, MergePlan, identity_plan
from vtm.sampling import even_ranking, gumbel_noise, highest, sampled_targets
from vtm.upload import to_device
from vtm.windows import WindowLayout, WindowRun, window_tokens

Strategy = Literal["none", "naive", "center", "boundary", "motion", "saliency", "learnable", "coverage"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

LEAST_DEVIATION = 1e-12
"""Least standard deviation to divide by: that of equal scores is 0."""


def merge_plan(
    keys_BND: Tensor,
    *,
    grid: Grid,
    strategy: Strategy = "naive",
    partition_factor: int | None = None,
    keep: float | None = None,
    num_tokens: int | None = None,
    merge_share: float = 1.0,
    window_frames: int | None = None,
    seed: int | Sequence[int] = 0,
    motion: Tensor | None = None,
    saliency: Tensor | None = None,
    features: Tensor | None = None,
) -> MergePlan:
    """Decide how the tokens of a clip merge.

    Except for `coverage`, each source joins the target nearest to it by the cosine of the keys (equation 3).

    Args:
        keys_BND: (B, N, D) keys of the tokens in t, y, x order, any float dtype; no gradient is taken.
        grid: T, H, W in patches, T·H·W = N.
        strategy: where the targets lie; the module has the table.
        partition_factor: γ, one target in γ tokens. Exactly one of this, `keep` and `num_tokens` is given.
        keep: share of tokens left, above 0 and at most 1.
        num_tokens: number of tokens left; a clip that has no more is not merged.
        merge_share: R as a share of the sources: only the most similar ones merge (equation 5).
        window_frames: merge within windows of that many frames (L_i); across the whole clip by default.
        seed: of all that is drawn, one for every clip or one each; a seed gives the same draw on every device.
        motion: (B, T, H, W) or (B, N) motion magnitudes, any dtype and device.
        saliency: (B, T, H, W) or (B, N) token scores, any dtype and device.
        features: (B, N, C) the tokens that will be merged, which `coverage` groups by; the keys by default.

    Returns:
        The plan, its groups ordered by the position of their target.

    Raises:
        MergeError: a setting is out of range, missing, or excluded by another; or, on a CPU, keys, features or scores
            are not finite. Elsewhere nothing is looked at, so that the host does not wait.
    """
    _check(keys_BND, features, strategy, grid)
    if strategy == "none":
        check_merge(merge_share, window_frames)
        _check_nothing_asked(partition_factor=partition_factor, keep=keep, num_tokens=num_tokens)
        return identity_plan(len(keys_BND), keys_BND.shape[1], keys_BND.device)
    budget = Budget(
        partition_factor=partition_factor,
        keep=keep,
        num_tokens=num_tokens,
        merge_share=merge_share,
        window_frames=window_frames,
    )
    seeds = [seed] * len(keys_BND) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(keys_BND):
        raise MergeError(f"give one seed, or one for each of the {len(keys_BND)} clips, got {len(seeds)}")
    match strategy:
        case "naive":
            return _naive(keys_BND, grid, budget)
        case "center" | "boundary":
            return _half_from(strategy, keys_BND, grid, budget)
        case "motion":
            return _drawn(keys_BND, token_scores("motion", motion, keys_BND), grid, budget, seeds)
        case "learnable":
            return _drawn(keys_BND, token_scores("saliency", saliency, keys_BND), grid, budget, seeds)
        case "saliency":
            scores_BN = standardised(token_scores("saliency", saliency, keys_BND))
            return _drawn(keys_BND, scores_BN, grid, budget, seeds)
        case "coverage":
            return _covering(keys_BND if features is None else features, grid, budget, seeds)


def _naive(keys_BND: Tensor, grid: Grid, budget: Budget) -> MergePlan:
    def plan(budget: Budget, keys_BND: Tensor) -> MergePlan:
        batch, total, _ = keys_BND.shape
        if budget.stride is None:
            target_M = even_targets(total, budget.targets(total), keys_BND.device)
        else:
            target_M = strided_targets(total, budget.stride, keys_BND.device)
        return matched_plan(keys_BND, target_M.expand(batch, -1), budget.merge_share)

    return _in_windows(plan, grid, budget, keys_BND)


def _half_from(area: Area, keys_BND: Tensor, grid: Grid, budget: Budget) -> MergePlan:
    def plan(budget: Budget, keys_BND: Tensor, ranking_BN: Tensor) -> MergePlan:
        target_BM = highest(ranking_BN, budget.targets(keys_BND.shape[1]))
        return matched_plan(keys_BND, target_BM, budget.merge_share)

    ranking_BN = area_ranking(area, grid, keys_BND.device).expand(len(keys_BND), -1)
    return _in_windows(plan, grid, budget, keys_BND, ranking_BN)


def _drawn(keys_BND: Tensor, scores_BN: Tensor, grid: Grid, budget: Budget, seeds: Sequence[int]) -> MergePlan:
    def plan(budget: Budget, keys_BND: Tensor, scores_BN: Tensor, noise_BN: Tensor) -> MergePlan:
        target_BM = sampled_targets(scores_BN, budget.targets(keys_BND.shape[1]), noise_BN)
        return matched_plan(keys_BND, target_BM, budget.merge_share)

    noise_BN = gumbel_noise(seeds, keys_BND.shape[1], keys_BND.device)
    return _in_windows(plan, grid, budget, keys_BND, scores_BN, noise_BN)


def _covering(x_BNC: Tensor, grid: Grid, budget: Budget, seeds: Sequence[int]) -> MergePlan:
    def plan(budget: Budget, x_BNC: Tensor, ranking_BN: Tensor, noise_BN: Tensor) -> MergePlan:
        return coverage_plan(x_BNC, budget.targets(x_BNC.shape[1]), ranking_BN, noise_BN, budget.merge_share)

    noise_BN = gumbel_noise(seeds, x_BNC.shape[1], x_BNC.device)
    return _in_windows(plan, grid, budget, x_BNC, even_ranking(grid, seeds, x_BNC.device), noise_BN)


def _in_windows(plan: Callable[..., MergePlan], grid: Grid, budget: Budget, *columns: Tensor) -> MergePlan:
    """Merge a clip window by window.

    Args:
        plan: decides for windows of equal shape, from their budget and one tensor (B·W, n, …) for each of `columns`.
        grid: T, H, W.
        budget: of the clip.
        columns: (B, N, …), one row a token.
    """
    if budget.window_frames is None:
        return plan(budget, *columns)
    tokens = window_tokens(grid, budget.window_frames)
    runs: list[tuple[WindowRun, Budget]] = []
    for size, own in zip(tokens, budget.of_windows(tokens), strict=True):
        if runs and (runs[-1][0].tokens, runs[-1][1]) == (size, own):
            runs[-1] = WindowRun(runs[-1][0].windows + 1, size), own
        else:
            runs.append((WindowRun(1, size), own))
    layout = WindowLayout(tuple(run for run, _ in runs))
    parts = zip(*(layout.split(column) for column in columns), strict=True)
    return layout.join_plans([plan(own, *part) for (_, own), part in zip(runs, parts, strict=True)])


def token_scores(name: str, scores: Tensor | None, keys_BND: Tensor) -> Tensor:
    """The scores by which targets are drawn, checked (equation 6, section 3.4).

    Args:
        name: of the scores, for messages.
        scores: (B, T, H, W) or (B, N), any dtype and device.
        keys_BND: (B, N, D) keys of the tokens that are scored.

    Returns:
        (B, N) float32 on the keys' device, without gradient.

    Raises:
        MergeError: there are no scores, they are not one a token, or, on a CPU, some are not finite.
    """
    if scores is None:
        raise MergeError(f"the strategy reads {name}, one value a token, but none was given")
    scores_BN = to_device(scores.detach().flatten(1), keys_BND.device).float()
    if scores_BN.shape != keys_BND.shape[:2]:
        raise MergeError(
            f"{name} has shape {tuple(scores.shape)}, expected one value for each of the tokens of "
            f"{tuple(keys_BND.shape[:2])}"
        )
    check_finite(f"{name} scores", scores_BN)
    return scores_BN


def standardised(scores_BN: Tensor) -> Tensor:
    """The tanh of scores of mean 0 and deviation 1, since an encoder's attention has no scale of its own; (B, N)."""
    centred_BN = scores_BN - scores_BN.mean(dim=1, keepdim=True)
    deviation_B1 = centred_BN.square().mean(dim=1, keepdim=True).sqrt().clamp_min(LEAST_DEVIATION)
    return torch.tanh(centred_BN / deviation_B1)


def _check(keys_BND: Tensor, features_BNC: Tensor | None, strategy: str, grid: Grid) -> None:
    if strategy not in STRATEGIES:
        raise MergeError(f"unknown strategy {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    if keys_BND.dim() != 3:
        raise MergeError(f"keys have shape (B, N, D), got {tuple(keys_BND.shape)}")
    if min(grid) < 1:
        raise MergeError(f"a grid has at least one frame, row and column, got {tuple(grid)}")
    if grid[0] * grid[1] * grid[2] != keys_BND.shape[1]:
        raise MergeError(f"grid {tuple(grid)} does not hold the {keys_BND.shape[1]} tokens of the keys")
    if features_BNC is not None and features_BNC.shape[:2] != keys_BND.shape[:2]:
        raise MergeError(f"features {tuple(features_BNC.shape)} and keys {tuple(keys_BND.shape)} differ in tokens")
    check_finite("keys", keys_BND)
    if features_BNC is not None and features_BNC is not keys_BND:
        check_finite("features", features_BNC)


def _check_nothing_asked(**amounts: float | None) -> None:
    for name, value in amounts.items():
        if value is not None:
            raise MergeError(f"strategy none merges nothing, so it takes no {name}, got {value}")
