"""Tokens of four bits: numbers from 0 to 15, with a step and a lowest value for each group of 32 channels.

Letters: M tokens, D channels, G = ceil(D / 32) groups. In memory a number takes a byte, in files half of one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GROUP = 32
"""Channels that share a step: `vtm bench storage` shows what 16 and 64 would cost and lose."""
LEVELS = 15
LARGEST = torch.finfo(torch.float16).max


def quantized(values_MD: Tensor, group: int = GROUP) -> tuple[Tensor, Tensor]:
    """(M, D) uint8 from 0 to 15, and (M, G, 2) float16: each group's step, and its lowest value.

    token = number * step + lowest. Files have groups of `GROUP` channels; others are for measuring.
    """
    tokens, dim = values_MD.shape
    missing = -dim % group
    # The last group is filled up with its last channel, which changes neither end of its range.
    filled = torch.cat((values_MD, values_MD[:, -1:].expand(-1, missing)), dim=1).clamp(-LARGEST, LARGEST)
    groups_MGC = filled.reshape(tokens, -1, group)
    lowest_MG = groups_MGC.amin(dim=2).half()
    step_MG = ((groups_MGC.amax(dim=2) - lowest_MG.float()) / LEVELS).half()
    step_MG = step_MG.clamp(min=torch.finfo(torch.float16).tiny)
    numbers_MGC = (groups_MGC - lowest_MG.float()[..., None]) / step_MG.float()[..., None]
    numbers_MD = numbers_MGC.round().clamp(0, LEVELS).to(torch.uint8).reshape(tokens, -1)[:, :dim]
    return numbers_MD.contiguous(), torch.stack((step_MG, lowest_MG), dim=2)


def dequantized(
    numbers_MD: NDArray[np.uint8], scale_MG2: NDArray[np.float16], group: int = GROUP
) -> NDArray[np.float32]:
    """(M, D) the numbers that `quantized` has rounded."""
    dim = numbers_MD.shape[1]
    scale_MD2 = np.repeat(scale_MG2.astype(np.float32), group, axis=1)[:, :dim]
    values_MD: NDArray[np.float32] = numbers_MD * scale_MD2[..., 0] + scale_MD2[..., 1]
    return values_MD


def packed(tokens_MD: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(M, ceil(D / 2)): two numbers a byte, the first in its lower half; an odd last one alone."""
    numbers_MD = tokens_MD.astype(np.uint8, copy=False)
    even, odd = numbers_MD[:, ::2], numbers_MD[:, 1::2]
    bytes_MB = even.copy()
    bytes_MB[:, : odd.shape[1]] |= odd << 4
    return bytes_MB


def unpacked(bytes_MB: NDArray[np.uint8], dim: int) -> NDArray[np.uint8]:
    """(M, dim) the numbers of `packed`.

    Raises:
        ValueError: there are too few bytes.
    """
    if bytes_MB.shape[1] != -(-dim // 2):
        raise ValueError(f"{bytes_MB.shape[1]} bytes a token hold no {dim} numbers of four bits")
    numbers_MD = np.empty((len(bytes_MB), dim), dtype=np.uint8)
    numbers_MD[:, ::2] = bytes_MB & 15
    numbers_MD[:, 1::2] = (bytes_MB >> 4)[:, : dim // 2]
    return numbers_MD


def unpacked_tokens(
    bytes_: NDArray[np.uint8], scale: NDArray[np.float16], shape: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """(M, D) and (M, G, 2) of what a file holds of tokens of a shape.

    Raises:
        ValueError: lengths do not fit the shape.
    """
    tokens, dim = shape
    return unpacked(bytes_.reshape(tokens, -1), dim), scale.reshape(tokens, -(-dim // GROUP), 2)
