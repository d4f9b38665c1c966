"""Last block's tokens -> the family's image embedding.

Letters: B frames, S tokens, D channels, E channels of the embedding.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtm.encoders.config import VitConfig
from vtm.encoders.linear import ACTIVATE


class DensePooler(nn.Module):
    """tanh of a linear map of the normed cls token (ViT, DeiT)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.dim, config.pooled_dim)

    def forward(self, normed_BSD: Tensor) -> Tensor:
        """(B, S, D) to (B, E)."""
        return torch.tanh(self.dense(normed_BSD[:, 0]))


class Projection(nn.Module):
    """A linear map of the normed cls token into the space shared with text (CLIP)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(config.dim, config.pooled_dim, bias=False)

    def forward(self, normed_BSD: Tensor) -> Tensor:
        """(B, S, D) to (B, E)."""
        return cast(Tensor, self.projection(normed_BSD[:, 0]))


class ClsPooler(nn.Module):
    """The normed cls token itself (DINOv2, DINOv3, CLIP without its projection)."""

    def forward(self, normed_BSD: Tensor) -> Tensor:
        """(B, S, D) to (B, D)."""
        return normed_BSD[:, 0]


class AttentionPooler(nn.Module):
    """One learned query attends to all normed tokens, then an MLP (SigLIP)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.activation = config.activation
        self.probe = nn.Parameter(torch.empty(1, 1, config.dim))
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.fc1 = nn.Linear(config.dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.dim)

    def forward(self, normed_BSD: Tensor) -> Tensor:
        """(B, S, D) to (B, D)."""
        batch, _, dim = normed_BSD.shape
        query = F.linear(self.probe, self.qkv.weight[:dim], self.qkv.bias[:dim]).expand(batch, -1, -1)
        keys, values = F.linear(normed_BSD, self.qkv.weight[dim:], self.qkv.bias[dim:]).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(self._split(query), self._split(keys), self._split(values))
        x_B1D = self.proj(mixed.transpose(1, 2).flatten(2))
        x_B1D = x_B1D + self.fc2(ACTIVATE[self.activation](self.fc1(self.norm(x_B1D))))
        return cast(Tensor, x_B1D[:, 0])

    def _split(self, x_BSD: Tensor) -> Tensor:
        batch, tokens, dim = x_BSD.shape
        return x_BSD.view(batch, tokens, self.num_heads, dim // self.num_heads).transpose(1, 2)


def make_head(config: VitConfig) -> nn.Module | None:
    """The module that makes the image embedding, or None where the family has none."""
    match config.head:
        case "dense":
            return DensePooler(config)
        case "projection":
            return Projection(config)
        case "attention":
            return AttentionPooler(config)
        case "cls":
            return ClsPooler()
        case "none":
            return None
