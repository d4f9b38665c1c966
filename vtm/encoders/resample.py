"""Resizing as Pillow does it, bit for bit: the fixed point of its antialiased filters, by matrix products.

The fast uint8 kernels of torch keep fewer bits of each weight, and are one level off in some pixels of a thousand.

Letters: T frames, H x W pixels, n pixels of a line before, m after.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

PRECISION_BITS = 22
"""Of a weight, in Pillow: 32 bits less 8 of the pixel and 2 of headroom."""
BLOCK = 32
"""Output pixels a matrix product makes at once: a filter sees few pixels, so most of a larger one would be zeros."""

Interpolation = Literal["bicubic", "bilinear"]


def resize(frames_THW3: Tensor, height_px: int, width_px: int, interpolation: Interpolation) -> Tensor:
    """Resize frames, one axis after the other, each pass rounded to whole levels.

    Args:
        frames_THW3: uint8.
        height_px: of the result.
        width_px: of the result.
        interpolation: the filter.

    Returns:
        (T, height_px, width_px, 3) uint8.
    """
    planes_T3HW = frames_THW3.permute(0, 3, 1, 2)
    # Which axis comes first shows in the rounding. Pillow 13 takes the width first, except for pictures that lose much
    # more height than width (found by trying sizes; Pillow before 13 always takes the width first).
    if planes_T3HW.shape[2] - height_px > 2 * max(0, planes_T3HW.shape[3] - width_px):
        short = _resize_lines(planes_T3HW.transpose(2, 3), height_px, interpolation)
        return _resize_lines(short.transpose(2, 3), width_px, interpolation).permute(0, 2, 3, 1)
    narrow = _resize_lines(planes_T3HW, width_px, interpolation)
    return _resize_lines(narrow.transpose(2, 3), height_px, interpolation).permute(0, 3, 2, 1)


def _resize_lines(lines: Tensor, size_px: int, interpolation: Interpolation) -> Tensor:
    """Resize the last dimension, (..., n) to (..., m)."""
    if lines.shape[-1] == size_px:
        return lines
    weights_nm = _weights(lines.shape[-1], size_px, interpolation)
    # Sums of products of whole numbers below 2^32: exact in float64.
    values = lines.double()
    blocks = []
    for block_nb in torch.split(weights_nm, BLOCK, dim=1):
        used = block_nb.any(dim=1).nonzero()
        first, end = int(used[0]), int(used[-1]) + 1
        blocks.append(values[..., first:end] @ block_nb[first:end])
    sums = torch.cat(blocks, dim=-1).add_(2.0 ** (PRECISION_BITS - 1))
    return sums.mul_(2.0**-PRECISION_BITS).floor_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=32)
def _weights(num_in: int, num_out: int, interpolation: Interpolation) -> Tensor:
    """Fixed-point weight of each input pixel for each output pixel, (n, m) whole numbers in float64."""
    scale = num_in / num_out
    stretch = max(scale, 1.0)
    support = stretch * (2.0 if interpolation == "bicubic" else 1.0)
    weights_nm = torch.zeros(num_in, num_out, dtype=torch.float64)
    for column in range(num_out):
        center = (column + 0.5) * scale
        first, end = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), num_in)
        taps = [_filter((x - center + 0.5) / stretch, interpolation) for x in range(first, end)]
        total = sum(taps)
        for x, tap in zip(range(first, end), taps, strict=True):
            weights_nm[x, column] = math.trunc(math.copysign(0.5, tap) + tap / total * 2**PRECISION_BITS)
    return weights_nm


def _filter(x: float, interpolation: Interpolation) -> float:
    """Triangle, or Keys' cubic with a = -0.5."""
    x = abs(x)
    if interpolation == "bilinear":
        return max(1.0 - x, 0.0)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0 if x < 2.0 else 0.0
