"""Stored tokens as numbers, and numbers as they are stored.

Letters: M tokens, D channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.shards.four_bits import dequantized, quantized
from pipeline.values import TokenSet

STORED_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def decoded_tokens(
    tokens_MD: NDArray[np.generic], dtype: str, scale_M: NDArray[np.floating[Any]] | None
) -> NDArray[np.float32]:
    """(M, D) the numbers that stored tokens are."""
    if dtype == "int4":
        assert scale_M is not None, "int4 has scales"
        return dequantized(tokens_MD.astype(np.uint8), scale_M.astype(np.float16))
    if dtype == "bfloat16":
        # bfloat16 is the upper half of float32.
        return (tokens_MD.astype(np.uint32) << 16).view(np.float32)
    values_MD: NDArray[np.float32] = torch.from_numpy(tokens_MD.copy()).float().numpy()
    return values_MD if scale_M is None else values_MD * scale_M[:, None]


def stored_tokens(values_MD: Tensor, dtype: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Tokens as they are written.

    Args:
        values_MD: float32.
        dtype: `float16`, `float32`, `bfloat16`, of which the bits are written, `int8`, with one scale a token, or
            `int4`, with a step and a lowest value for 32 channels.

    Returns:
        (M, D) and, for int8, (M,) scales, for int4 those of `four_bits.quantized`.
    """
    stored_MD, scale_M = stored_tensors(values_MD, dtype)
    return stored_MD.cpu().numpy(), None if scale_M is None else scale_M.cpu().numpy()


def stored_tensors(values_MD: Tensor, dtype: str) -> tuple[Tensor, Tensor | None]:
    """As `stored_tokens`, where the values are."""
    if dtype == "int4":
        return quantized(values_MD)
    if dtype == "int8":
        scale_M = values_MD.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        return (values_MD / scale_M[:, None]).round().to(torch.int8), scale_M
    stored_MD = values_MD.to(STORED_DTYPES[dtype]).contiguous()
    return stored_MD.view(torch.uint16) if dtype == "bfloat16" else stored_MD, None


def directions_of(clip: TokenSet) -> Tensor:
    """(J, D) float32: about the sum of the unit source tokens of each token, |S| as the clip's fidelity has it."""
    unit_JD = F.normalize(torch.from_numpy(decoded_tokens(clip.tokens, clip.tokens_dtype, clip.tokens_scale)), dim=1)
    return unit_JD * torch.from_numpy(masses(clip))[:, None] * clip.fidelity


def masses(clip: TokenSet) -> NDArray[np.float32]:
    """(J,) what each token weighs: its patches' weights, or their number."""
    return clip.sizes.astype(np.float32) if clip.weights is None else clip.weights.astype(np.float32)
