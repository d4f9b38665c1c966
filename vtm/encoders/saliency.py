"""A block's own attention on each patch.

Letters: B frames, h heads, S tokens, N patches, d channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attention_saliency(queries_BhSd: Tensor, keys_BhSd: Tensor, num_patches: int, *, has_cls: bool) -> Tensor:
    """Attention to each patch, averaged over heads: from cls, or, without one, from all tokens.

    One head's map is held at a time. Returns (B, N) float32; softmax in float32.
    """
    scale = queries_BhSd.shape[-1] ** -0.5
    num_heads = queries_BhSd.shape[1]
    queries = queries_BhSd[:, :, :1] if has_cls else queries_BhSd
    received = torch.zeros(queries.shape[0], num_patches, dtype=torch.float32, device=queries.device)
    for head in range(num_heads):
        scores_BSS = (queries[:, head] @ keys_BhSd[:, head].transpose(1, 2)).float() * scale
        received += scores_BSS.softmax(dim=-1)[:, :, -num_patches:].mean(dim=1)
    return received / num_heads
