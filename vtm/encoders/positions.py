"""Where a patch is: learned tables resized to a grid, and rotary angles.

Letters: H x W the patch grid, N = H * W, D channels, h channels of one head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vtm.encoders.config import PositionConfig


def resize_table(table_HWD: Tensor, grid_hw: tuple[int, int], config: PositionConfig) -> Tensor:
    """Learned positions for another grid, by bicubic interpolation as the family's reference does it. Returns (N, D)."""
    if tuple(table_HWD.shape[:2]) == grid_hw:
        return table_HWD.flatten(0, 1)
    # Half precision has too few bits to interpolate in; the reference in its own dtype is met for float32 and float64.
    at_least = torch.float32 if config.interpolate_in_float32 else torch.promote_types(table_HWD.dtype, torch.float32)
    resized_1DHW = F.interpolate(
        table_HWD.permute(2, 0, 1)[None].to(at_least),
        size=grid_hw,
        mode="bicubic",
        align_corners=False,
        antialias=config.antialias,
    )
    return resized_1DHW[0].flatten(1).T.to(table_HWD.dtype).contiguous()


def rotary_angles(grid_hw: tuple[int, int], head_dim: int, theta: float, device: torch.device) -> Tensor:
    """Angles of axial rotary embeddings (DINOv3, section 3.2): patch centres in [-1, 1], first y, then x. Returns (N, h / 2) float32."""
    frequency = 1 / theta ** torch.arange(0, 1, 4 / head_dim, dtype=torch.float32, device=device)
    y, x = (2.0 * (torch.arange(0.5, side, dtype=torch.float32, device=device) / side) - 1.0 for side in grid_hw)
    centre_N2 = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)
    return (2 * math.pi * centre_N2[:, :, None] * frequency).flatten(1)


def rotate(x_BhNd: Tensor, cos_Nd: Tensor, sin_Nd: Tensor) -> Tensor:
    """Turn the channel pairs (c, c + d/2) of the last N tokens by their angles; the prefix tokens before them have no place."""
    num_patches = cos_Nd.shape[0]
    prefix, patches = x_BhNd[..., :-num_patches, :], x_BhNd[..., -num_patches:, :]
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cos_Nd + torch.cat((-second, first), dim=-1) * sin_Nd
    return torch.cat((prefix, turned), dim=-2)
