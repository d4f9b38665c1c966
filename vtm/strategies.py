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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from vtm.budget import Budget
from vtm.coverage import coverage_plan
from vtm.merge import plan_from_targets
from vtm.partition import boundary_targets, center_targets, even_targets, strided_targets
from vtm.plan import Grid, MergeError, MergePlan, identity_plan
from vtm.sampling import gumbel_noise, sampled_targets, spread_ranking
from vtm.windows import WindowRun, join_windows, split_windows

Strategy = Literal["none", "naive", "center", "boundary", "motion", "saliency", "learnable", "coverage"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cues:
    """One row a token of all that a strategy decides from; what it does not read is None."""

    keys: Tensor
    """(B, N, D)."""
    features: Tensor
    """(B, N, C)."""
    scores: Tensor | None
    """(B, N) float32, what the sampled strategies draw by."""
    noise: Tensor | None
    """(B, N) Gumbel noise, for what draws."""
    spread: Tensor | None
    """(B, N) low-discrepancy ranks, for `coverage`."""

    def of(self, run: WindowRun, patches: int) -> _Cues:
        """The same of the windows of a run."""
        return _Cues(
            keys=run.cut(self.keys, patches),
            features=run.cut(self.features, patches),
            scores=None if self.scores is None else run.cut(self.scores, patches),
            noise=None if self.noise is None else run.cut(self.noise, patches),
            spread=None if self.spread is None else run.cut(self.spread, patches),
        )


def merge_plan(
    keys_BND: Tensor,
    *,
    strategy: Strategy = "naive",
    grid: Grid,
    partition_factor: int | None = None,
    merge_share: float = 1.0,
    keep: float | None = None,
    num_tokens: int | None = None,
    window_frames: int | None = None,
    seed: int | Sequence[int] = 0,
    motion: Tensor | None = None,
    saliency: Tensor | None = None,
    features: Tensor | None = None,
) -> MergePlan:
    """Decide how the tokens of a clip merge.

    How far is said in one of three ways: `partition_factor`, `keep` or `num_tokens`. Except for `coverage`, each source
    joins the target nearest to it by the cosine of the keys (equation 3).

    Args:
        keys_BND: (B, N, D) keys of the tokens in t, y, x order, any float dtype; no gradient is taken.
        strategy: where the targets lie; the module has the table.
        grid: T, H, W in patches, T·H·W = N.
        partition_factor: γ; ceil(N / γ) tokens are targets.
        merge_share: the paper's R as a share of the sources: only the floor(merge_share · |S|) most similar merge.
        keep: share of tokens left, above 0 and at most 1.
        num_tokens: number of tokens left; a clip that has no more than that is not merged.
        window_frames: merge within windows of that many frames (the paper's L_i), the last one shorter where they do
            not divide T; across the whole clip by default.
        seed: of all that is drawn, one for every clip or one each; a seed gives the same draw on every device.
        motion: (B, T, H, W) or (B, N) motion magnitudes.
        saliency: (B, T, H, W) or (B, N) token scores.
        features: (B, N, C) the tokens that will be merged, which `coverage` groups by; the keys by default.

    Returns:
        The plan, its groups ordered by the position of their target.

    Raises:
        MergeError: a setting is out of range, missing, or excluded by another.
    """
    _check(keys_BND, features, strategy, grid, window_frames)
    if strategy == "none":
        _check_nothing_asked(partition_factor=partition_factor, keep=keep, num_tokens=num_tokens)
        return identity_plan(len(keys_BND), keys_BND.shape[1], keys_BND.device)
    budget = Budget(partition_factor=partition_factor, keep=keep, num_tokens=num_tokens, merge_share=merge_share)
    scores = {"motion": motion, "saliency": saliency, "learnable": saliency}.get(strategy)
    drawn = strategy in ("motion", "saliency", "learnable", "coverage")
    seeds = [seed] * len(keys_BND) if isinstance(seed, int) else list(seed)
    if drawn and len(seeds) != len(keys_BND):
        raise MergeError(f"give one seed, or one for each of the {len(keys_BND)} clips, got {len(seeds)}")
    cues = _Cues(
        keys=keys_BND,
        features=keys_BND if features is None else features,
        scores=_token_scores(scores, strategy, keys_BND),
        noise=gumbel_noise(seeds, keys_BND.shape[1], keys_BND.device) if drawn else None,
        spread=spread_ranking(grid, seeds, keys_BND.device) if strategy == "coverage" else None,
    )
    if window_frames is None:
        return _plan(strategy, cues, grid, budget)
    patches = grid[1] * grid[2]
    runs = split_windows(grid, window_frames, budget)
    plans = [_plan(strategy, cues.of(run, patches), (run.frames, *grid[1:]), run.budget) for run in runs]
    return join_windows(plans, len(keys_BND))


def _plan(strategy: Strategy, cues: _Cues, grid: Grid, budget: Budget) -> MergePlan:
    """Merge each row of the batch as a whole."""
    total = cues.keys.shape[1]
    count = budget.targets(total)
    if cues.spread is not None and cues.noise is not None:
        return coverage_plan(cues.features, count, cues.spread, cues.noise, budget.merge_share)
    if cues.scores is not None and cues.noise is not None:
        target_BM = sampled_targets(cues.scores, count, cues.noise)
    else:
        target_M = _placed_targets(strategy, grid, count, budget.stride)
        target_BM = target_M.to(cues.keys.device).expand(len(cues.keys), -1)
    return plan_from_targets(cues.keys, target_BM, budget.merge_share)


def _placed_targets(strategy: Strategy, grid: Grid, count: int, stride: int | None) -> Tensor:
    total = grid[0] * grid[1] * grid[2]
    match strategy:
        case "center":
            return center_targets(grid, count, stride)
        case "boundary":
            return boundary_targets(grid, count, stride)
        case _:
            return even_targets(total, count) if stride is None else strided_targets(total, stride)


def _token_scores(scores: Tensor | None, strategy: Strategy, keys_BND: Tensor) -> Tensor | None:
    """(B, N) float32 scores on the keys' device, ready for a softmax; None for a strategy that reads none."""
    if strategy not in ("motion", "saliency", "learnable"):
        return None
    name = "motion" if strategy == "motion" else "saliency"
    if scores is None:
        raise MergeError(f"strategy {strategy} reads {name}, one value a token, but none was given")
    scores_BN = scores.detach().flatten(1).to(keys_BND.device, torch.float32)
    if scores_BN.shape != keys_BND.shape[:2]:
        raise MergeError(
            f"{name} has shape {tuple(scores.shape)}, expected one value for each of the tokens of "
            f"{tuple(keys_BND.shape[:2])}"
        )
    if strategy == "saliency":
        spread_B1 = scores_BN.std(dim=1, correction=0, keepdim=True)
        scores_BN = torch.tanh((scores_BN - scores_BN.mean(dim=1, keepdim=True)) / spread_B1.clamp_min(1e-12))
    return scores_BN


def _check(keys_BND: Tensor, features_BNC: Tensor | None, strategy: str, grid: Grid, window_frames: int | None) -> None:
    if strategy not in STRATEGIES:
        raise MergeError(f"unknown strategy {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    if keys_BND.dim() != 3:
        raise MergeError(f"keys have shape (B, N, D), got {tuple(keys_BND.shape)}")
    if grid[0] * grid[1] * grid[2] != keys_BND.shape[1]:
        raise MergeError(f"grid {tuple(grid)} does not hold the {keys_BND.shape[1]} tokens of the keys")
    if features_BNC is not None and features_BNC.shape[:2] != keys_BND.shape[:2]:
        raise MergeError(f"features {tuple(features_BNC.shape)} and keys {tuple(keys_BND.shape)} differ in tokens")
    if window_frames is not None and window_frames < 1:
        raise MergeError(f"window_frames is at least 1, got {window_frames}")


def _check_nothing_asked(**amounts: float | None) -> None:
    for name, value in amounts.items():
        if value is not None:
            raise MergeError(f"strategy none merges nothing, so it takes no {name}, got {value}")
