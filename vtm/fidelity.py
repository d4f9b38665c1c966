"""How well merged tokens represent the tokens they came from.

Letters: B batch, N tokens before the merge, M after it, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vtm.matching import take_tokens
from vtm.plan import MergePlan

BLOCK_VALUES = 1 << 22
"""Values of a block of tokens in memory at a time."""


@torch.no_grad()
def token_cosines(x_BNC: Tensor, plan: MergePlan, merged_BMC: Tensor | None = None) -> Tensor:
    """Cosine between each token and the merged token that represents it.

    Args:
        x_BNC: (B, N, C) tokens before the merge, any float dtype.
        plan: the merge.
        merged_BMC: (B, M, C) tokens after it; their plain mean by default.

    Returns:
        (B, N) in float32, or in float64 where x is; 0 where either vector is zero.
    """
    precise = torch.promote_types(x_BNC.dtype, torch.float32)
    merged_BMC = (plan.sum(x_BNC) if merged_BMC is None else merged_BMC).to(precise)
    rows = max(1, BLOCK_VALUES // max(1, x_BNC.shape[0] * x_BNC.shape[2]))
    cosines = []
    for start in range(0, x_BNC.shape[1], rows):
        mine = slice(start, start + rows)
        merged_BNC = take_tokens(merged_BMC, plan.group[:, mine])
        cosines.append(F.cosine_similarity(x_BNC[:, mine].to(precise), merged_BNC, dim=2))
    return torch.cat(cosines, dim=1)


def fidelity(x_BNC: Tensor, plan: MergePlan, merged_BMC: Tensor | None = None) -> Tensor:
    """Mean over a clip of `token_cosines`, the cosines between tokens and what represents them.

    Args:
        x_BNC: (B, N, C) tokens before the merge, any float dtype.
        plan: the merge.
        merged_BMC: (B, M, C) tokens after it; their plain mean by default.

    Returns:
        (B,) float32 in [-1, 1].
    """
    return token_cosines(x_BNC, plan, merged_BMC).mean(dim=1, dtype=torch.float64).float()
