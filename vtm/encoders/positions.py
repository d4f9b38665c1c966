"""Where a patch is: learned tables resized to a grid, and rotary angles.

Letters: H x W the patch grid, N = H * W, D channels, B frames, h heads, S tokens, d channels of a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vtm.encoders.config import PositionConfig

Rotary = tuple[Tensor, Tensor]
"""cos and sin of the patches' angles, (N, d) each, or (B, 1, N, d) where each frame has its own."""


def resize_table(table_HWD: Tensor, grid_hw: tuple[int, int], config: PositionConfig) -> Tensor:
    """Learned positions for another grid, (N, D): bicubic, as the family's reference interpolates."""
    if tuple(table_HWD.shape[:2]) == grid_hw:
        return table_HWD.flatten(0, 1)
    # Half precision has too few bits to interpolate in; float32 and float64 models meet their reference.
    at_least = torch.float32 if config.interpolate_in_float32 else torch.promote_types(table_HWD.dtype, torch.float32)
    resized_1DHW = F.interpolate(
        table_HWD.permute(2, 0, 1)[None].to(at_least),
        size=grid_hw,
        mode="bicubic",
        align_corners=False,
        antialias=config.antialias,
    )
    return resized_1DHW[0].flatten(1).T.to(table_HWD.dtype).contiguous()


def rotary_angles(grid_hw: tuple[int, int], head_dim: int, theta: float) -> Tensor:
    """Axial rotary angles (DINOv3, section 3.2), (N, d / 2) float32: patch centres in [-1, 1], y before x."""
    frequency = 1 / theta ** torch.arange(0, 1, 4 / head_dim, dtype=torch.float32)
    y, x = (2.0 * (torch.arange(0.5, side, dtype=torch.float32) / side) - 1.0 for side in grid_hw)
    centre_N2 = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)
    return (2 * math.pi * centre_N2[:, :, None] * frequency).flatten(1)


def rotary_of(angles: Tensor) -> Rotary:
    """Cosines and sines of angles, (..., N, d / 2) to (..., N, d) each."""
    doubled = torch.cat((angles, angles), dim=-1)
    return doubled.cos(), doubled.sin()


def rotate(x_BhSd: Tensor, rotary: Rotary) -> Tensor:
    """Turn the channel pairs (c, c + d/2) of the last N tokens by their angles; prefix tokens have no place."""
    cos, sin = rotary
    num_prefix = x_BhSd.shape[2] - cos.shape[-2]
    prefix, patches = x_BhSd[:, :, :num_prefix], x_BhSd[:, :, num_prefix:]
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((prefix, turned), dim=2)
