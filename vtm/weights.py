"""Tokens merged by weights that the task may learn: the grouping is a value, the weights keep their gradient.

Letters: B batch, N tokens, M groups, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtm.errors import MergeError
from vtm.plan import MergePlan


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
        MergeError: there is not one weight a token.
    """
    if weights.flatten(1).shape != plan.group.shape:
        raise MergeError(
            f"weights have shape {tuple(weights.shape)}, expected one value for each of the tokens of "
            f"{tuple(plan.group.shape)}"
        )
    weights_BN1 = weights.flatten(1)[..., None].to(torch.promote_types(x_BNC.dtype, torch.float32))
    none_BN1 = plan.spread(plan.sum(weights_BN1.detach())) == 0
    return plan.weighted_mean(x_BNC, torch.where(none_BN1, 1, weights_BN1)[..., 0])
