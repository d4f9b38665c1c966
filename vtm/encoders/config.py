"""What a vision transformer is made of, in this package's own terms; `families` reads it from config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"]
Head = Literal["none", "cls", "dense", "projection", "attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionConfig:
    """How a patch's place in the picture enters the network."""

    kind: Literal["learned", "rotary"]
    grid_hw: tuple[int, int]
    """Rows and columns of the learned table; the training size for rotary ones."""
    prefix: int = 0
    """How many of the prefix tokens have a learned position of their own."""
    antialias: bool = False
    """Whether the reference resizes the table with antialiasing."""
    interpolate_in_float32: bool = False
    """Whether the reference resizes the table in float32 whatever the model's dtype."""
    theta: float = 100.0
    """Base period of the rotary angles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VitConfig:
    """One vision transformer."""

    family: str
    """`model_type` of the checkpoint."""
    dim: int
    num_blocks: int
    num_heads: int
    mlp_dim: int
    """Hidden channels of the MLP; for a gated one, of each of its two halves."""
    patch_px: int
    positions: PositionConfig
    activation: Activation = "gelu"
    """In the MLP; of its gate, where it has one."""
    gated_mlp: bool = False
    norm_eps: float = 1e-6
    has_cls: bool = True
    num_registers: int = 0
    """Prefix tokens after cls: registers, or DeiT's distillation token."""
    biases: frozenset[str] = frozenset({"patch", "q", "k", "v", "proj", "fc1", "fc2"})
    """The linear maps that have a bias in the checkpoint."""
    layer_scale: bool = False
    pre_norm: bool = False
    """A norm between the embeddings and the first block (CLIP)."""
    norm_tokens: bool = True
    """Whether the family's `last_hidden_state` has the final norm applied; CLIP's has not."""
    head: Head = "none"
    """What makes the image embedding: the normed cls token, a dense tanh layer or a projection of it, or attention."""
    pooled_dim: int = 0
    """Channels of the image embedding; 0 where there is none."""

    @property
    def num_prefix(self) -> int:
        """Tokens before the patches: cls and registers."""
        return int(self.has_cls) + self.num_registers

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.num_heads
