"""Learning without labels: a scorer learns which targets let the merged tokens stand for all of them.

The measure is F(T), the sum over tokens of the cosine to the nearest target, for targets T drawn by the scores. Were
each token a target by its own coin of probability π_i, then dE[F]/dπ_i would be the expectation of
F(T with i) - F(T without i), exactly. For a drawn target that difference, its credit, follows from each token's best
and second best target alone:

    credit_i = Σ_{j served by i} (best_j - second_j), j running over all tokens, i among them

The draw keeps the number of targets, so credit counts against the mean credit: a score rises where its token serves
more than the others do. The sum goes over drawn targets, each weighted by (dπ_i/ds_i)/π_i. With M of N drawn,
π_i = 1 - exp(-w_i), w_i = exp(s_i - κ), κ such that the π_i sum to M.

Letters: B clips, N tokens, M targets, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from vtm.fidelity import fidelity
from vtm.matching import BLOCK_SIMILARITIES, take_tokens
from vtm.merge import plan_from_targets
from vtm.network.scorer import SaliencyScorer
from vtm.sampling import gumbel_noise, sampled_targets
from vtm.training.batches import ClipBatch
from vtm.training.settings import TrainingError

NEWTON_STEPS = 20


def credit_objective(partition_factor: int) -> Callable[[SaliencyScorer, ClipBatch], Tensor]:
    """The objective of a training run without labels; its value means little, its gradient is the module's.

    Args:
        partition_factor: γ, one target in γ tokens.

    Returns:
        A function of scorer and batch.
    """

    def objective(scorer: SaliencyScorer, batch: ClipBatch) -> Tensor:
        saliency_BN: Tensor = scorer(batch.patches, batch.grid)
        target_BM = draw_targets(saliency_BN, batch.seeds, partition_factor)
        credit_BM = target_credit(batch.patches, target_BM)
        weight_BM = _inclusion_slope(saliency_BN.detach(), target_BM.shape[1]).gather(1, target_BM)
        mean_B1 = (weight_BM * credit_BM).sum(dim=1, keepdim=True) / weight_BM.sum(dim=1, keepdim=True)
        advantage_BM = weight_BM * (credit_BM - mean_B1) / credit_BM.std(dim=1, keepdim=True).clamp_min(1e-6)
        return -(advantage_BM * saliency_BN.gather(1, target_BM)).mean()

    return objective


def draw_targets(saliency_BN: Tensor, seeds: tuple[int, ...], partition_factor: int) -> Tensor:
    """Draw the targets of each clip with probability softmax(saliency) (section 3.4).

    Args:
        saliency_BN: (B, N); no gradient passes.
        seeds: one a clip.
        partition_factor: γ.

    Returns:
        (B, ceil(N / γ)) int64, increasing.
    """
    tokens = saliency_BN.shape[1]
    noise_BN = gumbel_noise(seeds, tokens, saliency_BN.device)
    return sampled_targets(saliency_BN, -(-tokens // partition_factor), noise_BN)


@torch.no_grad()
def target_credit(x_BNC: Tensor, target_BM: Tensor) -> Tensor:
    """What the sum of all tokens' cosines to their nearest target would lose without each target.

    Args:
        x_BNC: (B, N, C) tokens, any float dtype.
        target_BM: (B, M) int64, two targets at least.

    Returns:
        (B, M) float32.

    Raises:
        TrainingError: there is a single target, which nothing can stand in for.
    """
    if target_BM.shape[1] < 2:
        raise TrainingError("credit needs two targets at least: lower the partition factor, or use longer clips")
    unit_BNC = F.normalize(x_BNC.float(), dim=2)
    targets_BMC = take_tokens(unit_BNC, target_BM)
    credit_BM = unit_BNC.new_zeros(target_BM.shape)
    bound = BLOCK_SIMILARITIES["cuda" if x_BNC.is_cuda else "cpu"]
    for block_BSC in torch.split(unit_BNC, max(1, bound // target_BM.numel()), dim=1):
        two = torch.bmm(block_BSC, targets_BMC.transpose(1, 2)).topk(2, dim=2)
        # A target's own best is itself at cosine 1, so its second best is what it would fall back to.
        credit_BM.scatter_add_(1, two.indices[..., 0], two.values[..., 0] - two.values[..., 1])
    return credit_BM


def _inclusion_slope(saliency_BN: Tensor, targets: int) -> Tensor:
    """(dπ/ds)/π of each token, by Newton's method for κ; (B, N)."""
    total = saliency_BN.shape[1]
    if targets >= total:
        return torch.zeros_like(saliency_BN)
    share_BN = saliency_BN.float().softmax(dim=1)
    scale_B1 = saliency_BN.new_full((len(saliency_BN), 1), float(targets))
    for _ in range(NEWTON_STEPS):
        missed_BN = torch.exp(-scale_B1 * share_BN)
        excess_B1 = total - missed_BN.sum(dim=1, keepdim=True) - targets
        scale_B1 = scale_B1 - excess_B1 / (share_BN * missed_BN).sum(dim=1, keepdim=True)
    rate_BN = scale_B1 * share_BN
    return rate_BN / torch.expm1(rate_BN)


@torch.no_grad()
def scorer_figures(scorer: SaliencyScorer, batches: Iterable[ClipBatch], partition_factor: int) -> Mapping[str, float]:
    """Fidelity of merging by the scorer, and by equal scores, on the same noise.

    Args:
        scorer: in evaluation mode.
        batches: clips that it did not learn from.
        partition_factor: γ; all sources merge.

    Returns:
        `fidelity` and `fidelity_unscored`: mean cosine of a token to its group's mean, over clips.

    Raises:
        TrainingError: there is no clip.
    """
    device = next(scorer.parameters()).device
    scored: list[Tensor] = []
    unscored: list[Tensor] = []
    for batch in batches:
        moved = batch.to(device)
        saliency_BN = scorer(moved.patches, batch.grid)
        for score_BN, found in ((saliency_BN, scored), (torch.zeros_like(saliency_BN), unscored)):
            plan = plan_from_targets(moved.patches, draw_targets(score_BN, batch.seeds, partition_factor))
            found.append(fidelity(moved.patches, plan).cpu())
    if not scored:
        raise TrainingError("there is no held-out clip to validate on: give more videos")
    return {"fidelity": torch.cat(scored).mean().item(), "fidelity_unscored": torch.cat(unscored).mean().item()}
