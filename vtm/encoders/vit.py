"""A plain vision transformer: pixels -> tokens, with the attention inputs of its last block.

Letters: B frames, N patches, S tokens (prefix and patches), D channels, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vtm.encoders.attention import AttentionInputs, gather_values
from vtm.encoders.config import Activation, VitConfig
from vtm.encoders.linear import ACTIVATE, Linear
from vtm.encoders.positions import Rotary, resize_table, rotary_angles, rotary_of, rotate
from vtm.upload import to_device


class Block(nn.Module):
    """Pre-norm attention and MLP. Layer scale is part of `proj` and `fc2`."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        dim, hidden = config.dim, config.mlp_dim
        self.num_heads = config.num_heads
        self.activation: Activation = config.activation
        self.gated = config.gated_mlp
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.qkv = Linear(dim, 3 * dim, bias=bool({"q", "k", "v"} & config.biases))
        self.proj = Linear(dim, dim, bias="proj" in config.biases)
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.fc1 = Linear(dim, hidden * (2 if self.gated else 1), bias="fc1" in config.biases)
        self.fc2 = Linear(hidden, dim, bias="fc2" in config.biases)

    def project(self, x_BSD: Tensor, rotary: Rotary | None) -> AttentionInputs:
        """Queries, keys and values of the normed tokens."""
        batch, tokens, dim = x_BSD.shape
        qkv: Tensor = self.qkv(self.norm1(x_BSD))
        split = qkv.view(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        if rotary is not None:
            queries, keys = rotate(queries, rotary), rotate(keys, rotary)
        return AttentionInputs(queries, keys, values, qkv[..., dim : 2 * dim])

    def attend(self, x_BSD: Tensor, attention: AttentionInputs, bias_B11S: Tensor | None = None) -> Tensor:
        """Add what attention gathers; `bias_B11S` is added to its logits."""
        return self.add(x_BSD, gather_values(attention.queries, attention.keys, attention.values, bias_B11S))

    def add(self, x_BSD: Tensor, gathered_BSD: Tensor) -> Tensor:
        """Add what attention has gathered."""
        return self.proj.added_to(x_BSD, gathered_BSD)

    def transform(self, x_BSD: Tensor) -> Tensor:
        """Add what the MLP makes of each token."""
        normed_BSD = self.norm2(x_BSD)
        if self.gated:
            gate, up = self.fc1(normed_BSD).chunk(2, dim=-1)
            hidden = ACTIVATE[self.activation](gate) * up
        else:
            hidden = self.fc1.activated(normed_BSD, self.activation)
        return self.fc2.added_to(x_BSD, hidden)

    def forward(self, x_BSD: Tensor, rotary: Rotary | None = None) -> Tensor:
        """One block, (B, S, D) to (B, S, D)."""
        return self.transform(self.attend(x_BSD, self.project(x_BSD, rotary)))


class VisionTransformer(nn.Module):
    """Embeddings and the blocks up to the output block."""

    def __init__(self, config: VitConfig, *, num_blocks: int, grid_hw: tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        self.grid_hw = grid_hw
        dim, patch_px, (rows, columns) = config.dim, config.patch_px, grid_hw
        self.patch = Linear(3 * patch_px * patch_px, dim, bias="patch" in config.biases)
        self.prefix = nn.Parameter(torch.empty(config.num_prefix, dim))
        self.positions: nn.Parameter | None = None
        self.grid_positions: nn.Parameter | None = None
        self.grid_rotary: nn.Parameter | None = None
        # The preprocessor's grid is prepared once, because resizing the table costs as much as several blocks.
        if config.positions.kind == "learned":
            self.positions = nn.Parameter(torch.empty(*config.positions.grid_hw, dim))
            self.grid_positions = nn.Parameter(torch.empty(rows * columns, dim))
        else:
            self.grid_rotary = nn.Parameter(torch.empty(2, rows * columns, config.head_dim))
        self.pre_norm = nn.LayerNorm(dim, eps=config.norm_eps) if config.pre_norm else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(num_blocks))

    def embed(self, pixels_B3HW: Tensor) -> Tensor:
        """Tokens that enter the first block, (B, S, D)."""
        patch_px = self.config.patch_px
        batch = pixels_B3HW.shape[0]
        rows, columns = self.grid_of(pixels_B3HW)
        # A convolution whose stride is its kernel is a matrix product over patches. What overhangs is left out.
        pixels = pixels_B3HW[:, :, : rows * patch_px, : columns * patch_px]
        cut = pixels.reshape(batch, 3, rows, patch_px, columns, patch_px).permute(0, 2, 4, 1, 3, 5)
        x_BND: Tensor = self.patch(cut.reshape(batch, rows * columns, -1))
        if self.positions is not None and self.grid_positions is not None:
            at_home = (rows, columns) == self.grid_hw
            x_BND = x_BND + (
                self.grid_positions if at_home else resize_table(self.positions, (rows, columns), self.config.positions)
            )
        x_BSD = torch.cat((self.prefix.expand(batch, -1, -1), x_BND), dim=1)
        return x_BSD if self.pre_norm is None else cast(Tensor, self.pre_norm(x_BSD))

    def grid_of(self, pixels_B3HW: Tensor) -> tuple[int, int]:
        """Patches of a frame, rows and columns."""
        return pixels_B3HW.shape[2] // self.config.patch_px, pixels_B3HW.shape[3] // self.config.patch_px

    def rotary(self, grid_hw: tuple[int, int]) -> Rotary | None:
        """Cosines and sines of each patch's angles, where the family rotates."""
        if self.grid_rotary is None:
            return None
        if grid_hw == self.grid_hw:
            return self.grid_rotary[0], self.grid_rotary[1]
        cos, sin = rotary_of(rotary_angles(grid_hw, self.config.head_dim, self.config.positions.theta))
        dtype, device = self.grid_rotary.dtype, self.grid_rotary.device
        return to_device(cos.to(dtype), device), to_device(sin.to(dtype), device)

    def block_list(self) -> list[Block]:
        """The blocks, first to last."""
        return list(cast(Sequence[Block], self.blocks))

    def forward(self, pixels_B3HW: Tensor) -> tuple[Tensor, AttentionInputs]:
        """Output of the last block built, (B, S, D), without the final norm, and that block's attention inputs."""
        x_BSD, rotary = self.embed(pixels_B3HW), self.rotary(self.grid_of(pixels_B3HW))
        *earlier, last = self.block_list()
        for block in earlier:
            x_BSD = block(x_BSD, rotary)
        attention = last.project(x_BSD, rotary)
        return last.transform(last.attend(x_BSD, attention)), attention
