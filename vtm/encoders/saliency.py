"""How much a block's own attention looks at each patch.

Letters: B frames, h heads, S tokens, N patches, d channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vtm.encoders.attention import Attention


def attention_saliency(attention: Attention, num_patches: int, *, has_cls: bool) -> Tensor:
    """Attention to each patch, averaged over heads: from cls, or, without one, from all tokens.

    One head's map is held at a time. Returns (B, N) float32; softmax in float32.
    """
    scale = attention.queries.shape[-1] ** -0.5
    num_heads = attention.queries.shape[1]
    queries = attention.queries[:, :, :1] if has_cls else attention.queries
    received = torch.zeros(queries.shape[0], num_patches, dtype=torch.float32, device=queries.device)
    for head in range(num_heads):
        scores_BSS = (queries[:, head] @ attention.keys[:, head].transpose(1, 2)).float() * scale
        received += scores_BSS.softmax(dim=-1)[:, :, -num_patches:].mean(dim=1)
    return received / num_heads
