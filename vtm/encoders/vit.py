"""A plain vision transformer: pixels -> tokens, with the keys of its last block.

Letters: B frames, N patches, S tokens (prefix and patches), D channels, h heads, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtm.encoders.config import Activation, VitConfig
from vtm.encoders.positions import resize_table, rotary_angles, rotate

ACTIVATE: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
}

Rotary = tuple[Tensor, Tensor]
"""cos and sin, (N, d) each."""


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """Queries, keys and values of one block, (B, h, S, d) each; `keys` (B, S, h * d) before any rotation."""

    queries: Tensor
    keys_turned: Tensor
    values: Tensor
    keys: Tensor


class Block(nn.Module):
    """Pre-norm attention and MLP. Layer scale is part of `proj` and `fc2`."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, config.mlp_dim
        self.num_heads = config.num_heads
        self.activation: Activation = config.activation
        self.gated = config.gated_mlp
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.qkv = nn.Linear(dim, 3 * dim, bias=bool({"q", "k", "v"} & config.biases))
        self.proj = nn.Linear(dim, dim, bias="proj" in config.biases)
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.fc1 = nn.Linear(dim, hidden * (2 if self.gated else 1), bias="fc1" in config.biases)
        self.fc2 = nn.Linear(hidden, dim, bias="fc2" in config.biases)

    def project(self, x_BSD: Tensor, rotary: Rotary | None) -> Attention:
        """Queries, keys and values of the normed tokens."""
        batch, tokens, dim = x_BSD.shape
        qkv = self.qkv(self.norm1(x_BSD))
        keys_BSD = qkv[..., dim : 2 * dim]
        q, k, v = qkv.view(batch, tokens, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        return Attention(q, k, v, keys_BSD)

    def attend(self, x_BSD: Tensor, attention: Attention) -> Tensor:
        """Add what attention gathers."""
        mixed = F.scaled_dot_product_attention(attention.queries, attention.keys_turned, attention.values)
        return x_BSD + self.proj(mixed.transpose(1, 2).flatten(2))

    def transform(self, x_BSD: Tensor) -> Tensor:
        """Add what the MLP makes of each token."""
        hidden = self.fc1(self.norm2(x_BSD))
        if self.gated:
            gate, up = hidden.chunk(2, dim=-1)
            hidden = ACTIVATE["silu"](gate) * up
        else:
            hidden = ACTIVATE[self.activation](hidden)
        return x_BSD + self.fc2(hidden)

    def forward(self, x_BSD: Tensor, rotary: Rotary | None = None) -> Tensor:
        """One block, (B, S, D) to (B, S, D)."""
        return self.transform(self.attend(x_BSD, self.project(x_BSD, rotary)))


class VisionTransformer(nn.Module):
    """Embeddings, the blocks up to the output block, and the final norm where it is wanted."""

    def __init__(self, config: VitConfig, *, num_blocks: int) -> None:
        super().__init__()
        self.config = config
        dim, patch_px = config.dim, config.patch_px
        self.patch = nn.Linear(3 * patch_px * patch_px, dim, bias="patch" in config.biases)
        self.prefix = nn.Parameter(torch.empty(config.num_prefix, dim))
        self.positions = (
            nn.Parameter(torch.empty(*config.positions.grid_hw, dim)) if config.positions.kind == "learned" else None
        )
        self.pre_norm = nn.LayerNorm(dim, eps=config.norm_eps) if config.pre_norm else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(num_blocks))

    def embed(self, pixels_B3HW: Tensor) -> tuple[Tensor, Rotary | None]:
        """Tokens that enter the first block, (B, S, D), and the rotary table where the family has one."""
        patch_px = self.config.patch_px
        batch, _, height_px, width_px = pixels_B3HW.shape
        rows, columns = height_px // patch_px, width_px // patch_px
        # A convolution whose stride is its kernel is a matrix product over the patches; what overhangs the grid is left out.
        pixels = pixels_B3HW[:, :, : rows * patch_px, : columns * patch_px]
        cut = pixels.reshape(batch, 3, rows, patch_px, columns, patch_px).permute(0, 2, 4, 1, 3, 5)
        x_BND = self.patch(cut.reshape(batch, rows * columns, -1))
        if self.positions is not None:
            x_BND = x_BND + resize_table(self.positions, (rows, columns), self.config.positions)
        x_BSD = torch.cat((self.prefix.expand(batch, -1, -1), x_BND), dim=1)
        return (x_BSD if self.pre_norm is None else self.pre_norm(x_BSD)), self._rotary((rows, columns), x_BSD)

    def _rotary(self, grid_hw: tuple[int, int], like: Tensor) -> Rotary | None:
        if self.config.positions.kind != "rotary":
            return None
        angles = rotary_angles(grid_hw, self.config.head_dim, self.config.positions.theta, like.device).tile(2)
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)

    def forward(self, pixels_B3HW: Tensor) -> tuple[Tensor, Attention]:
        """Output of the last block built, (B, S, D), without the final norm, and that block's attention inputs."""
        x_BSD, rotary = self.embed(pixels_B3HW)
        for block in self.blocks[:-1]:
            x_BSD = block(x_BSD, rotary)
        last = self.blocks[-1]
        attention = last.project(x_BSD, rotary)
        return last.transform(last.attend(x_BSD, attention)), attention
