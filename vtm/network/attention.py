"""Self-attention over one window, plain or fused, with an optional saliency added to the logits of every query.

Letters: B windows, h heads, N tokens of a window, d channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vtm.network.config import AttentionKernel

FUSED_WIDTH_MULTIPLE = 8
"""Fused kernels want head widths in steps of this many channels."""


def attend(
    q_BhNd: Tensor,
    k_BhNd: Tensor,
    v_BhNd: Tensor,
    *,
    scale: float,
    attention: AttentionKernel,
    saliency_BN: Tensor | None = None,
) -> Tensor:
    """Equation 8, softmax(Q Kᵀ · scale) V, or with a saliency equation 10, softmax((Q Kᵀ + 1 Sᵀ) · scale) V.

    Args:
        q_BhNd: (B, h, N, d), any float dtype; keys and values alike.
        k_BhNd: (B, h, N, d).
        v_BhNd: (B, h, N, d).
        scale: 1/√d in equation 8, 1/√C in equation 10.
        attention: `plain` holds the (N, N) softmax in memory, `fused` never does; equal to rounding.
        saliency_BN: (B, N), added to the logits of every query and head; gradients reach it.

    Returns:
        (B, h, N, d).
    """
    if attention == "plain":
        logits_BhNN = (q_BhNd * scale) @ k_BhNd.transpose(2, 3)
        if saliency_BN is not None:
            logits_BhNN = logits_BhNN + (saliency_BN * scale)[:, None, None, :]
        return logits_BhNN.softmax(dim=3) @ v_BhNd
    if saliency_BN is not None:
        q_BhNd, k_BhNd, v_BhNd = _with_saliency_channel(q_BhNd, k_BhNd, v_BhNd, saliency_BN)
        width = q_BhNd.shape[3] - FUSED_WIDTH_MULTIPLE
        return F.scaled_dot_product_attention(q_BhNd, k_BhNd, v_BhNd, scale=scale)[..., :width]
    return F.scaled_dot_product_attention(q_BhNd, k_BhNd, v_BhNd, scale=scale)


def _with_saliency_channel(
    q_BhNd: Tensor, k_BhNd: Tensor, v_BhNd: Tensor, saliency_BN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    # [q, 1] · [k, s] = q · k + s: fused kernels pass no gradient to an additive mask, but they do to a channel.
    batch, heads, tokens, _ = q_BhNd.shape
    column_BhN1 = saliency_BN[:, None, :, None].expand(batch, heads, tokens, 1).to(k_BhNd.dtype)
    blank_BhNp = q_BhNd.new_zeros(batch, heads, tokens, FUSED_WIDTH_MULTIPLE - 1)
    return (
        torch.cat((q_BhNd, torch.ones_like(column_BhN1), blank_BhNp), dim=3),
        torch.cat((k_BhNd, column_BhN1, blank_BhNp), dim=3),
        F.pad(v_BhNd, (0, FUSED_WIDTH_MULTIPLE)),
    )
