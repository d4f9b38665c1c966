"""Tokens merged by weights that the task may learn: the grouping is a value, the weights keep their gradient.

Letters: B batch, N tokens, M groups, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtm.errors import MergeError
from vtm.finite import check_finite
from vtm.plan import MergePlan

UNIFORM_SHARE = 0.5
"""Of the weight that every token has alike: what no score points at is still represented."""


def weights_from(scores: Tensor, uniform_share: float = UNIFORM_SHARE) -> Tensor:
    """Weights from scores of any scale, such as an encoder's attention, motion, or similarities moved to 0 and above.

    Args:
        scores: (B, N) or (B, T, H, W), 0 or more.
        uniform_share: share of the weight that all tokens have alike, from 0 to 1.

    Returns:
        (B, N) in float32 at least, of mean 1 in each row; all 1 where a row's scores are all 0. Gradients flow through.

    Raises:
        MergeError: on a CPU, some scores are not finite. Elsewhere nothing is looked at: the host does not wait.
    """
    check_finite("scores", scores)
    scores_BN = scores.flatten(1).to(torch.promote_types(scores.dtype, torch.float32))
    mean_B1 = scores_BN.mean(dim=1, keepdim=True)
    shares_BN = torch.where(mean_B1 > 0, scores_BN / torch.where(mean_B1 > 0, mean_B1, 1), 1)
    return uniform_share + (1 - uniform_share) * shares_BN


def weighted_mean(x_BNC: Tensor, plan: MergePlan, weights: Tensor) -> Tensor:
    """Σ w·x / Σ w over each group: what a tree of the same weights keeps the directions of.

    The gradient of a token's weight is (x - mean) / Σ w, so that a group leans towards what the task can use. That is
    what a draw of targets (the paper's equation 10) cannot tell a scorer.

    Args:
        x_BNC: (B, N, C), any float dtype; gradients flow through.
        plan: which token is in which group.
        weights: (B, N) or (B, T, H, W), 0 or more; gradients flow through. Where a group's are all 0, its tokens count
            alike.

    Returns:
        (B, M, C) in the dtype of x, accumulated in float32 at least.

    Raises:
        MergeError: there is not one weight a token; or, on a CPU, some weights are not finite.
    """
    if weights.flatten(1).shape != plan.group.shape:
        raise MergeError(
            f"weights have shape {tuple(weights.shape)}, expected one value for each of the tokens of "
            f"{tuple(plan.group.shape)}"
        )
    check_finite("weights", weights)
    weights_BN1 = weights.flatten(1)[..., None].to(torch.promote_types(x_BNC.dtype, torch.float32))
    none_BN1 = plan.spread(plan.sum(weights_BN1.detach())) == 0
    return plan.weighted_mean(x_BNC, torch.where(none_BN1, 1, weights_BN1)[..., 0])
