"""A vision transformer that merges tokens on its way (ToMe: Bolya et al. 2023, arXiv:2210.09461).

Each block but the last merges between its attention and its MLP, so that the output block's keys and saliency are those
of the tokens that come out. Merged tokens weigh in later attention by the patches they represent, and turn, where the
family rotates, by their patches' mean angle.

Letters: B frames, N patches, M merged tokens, S tokens with the prefix, D channels, h heads, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vtm.encoders.attention import AttentionInputs
from vtm.encoders.positions import Rotary, rotary_angles, rotary_of
from vtm.encoders.vit import VisionTransformer
from vtm.plan import MergePlan
from vtm.size_attention import size_bias
from vtm.tome import bipartite_plan
from vtm.upload import to_device


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """What comes out of the output block."""

    tokens: Tensor
    """(B, S, D), without the final norm."""
    attention: AttentionInputs
    """Of the output block."""
    plan: MergePlan
    """The patch tokens' merge, N to M."""
    sizes: Tensor
    """(B, M) float32 patches a token represents."""


@dataclass(frozen=True, slots=True, eq=False)
class _Tokens:
    """Tokens between blocks and what belongs to each of them."""

    x: Tensor
    """(B, S, D)."""
    sizes: Tensor
    """(B, S) float32: a bfloat16 count stops at 256."""
    angles: Tensor | None
    """(B, M, d / 2) float32, where the family rotates."""
    plan: MergePlan | None

    def bias(self) -> Tensor | None:
        """What proportional attention adds to the logits; nothing before the first merge."""
        return None if self.plan is None else size_bias(self.sizes)

    def rotary(self) -> Rotary | None:
        if self.angles is None:
            return None
        cos, sin = rotary_of(self.angles[:, None])
        return cos.to(self.x.dtype), sin.to(self.x.dtype)

    def merged(self, step: MergePlan, num_prefix: int) -> _Tokens:
        """These tokens after one more merge."""
        angles = self.angles
        if angles is not None:
            angles = without_prefix(step, num_prefix).weighted_mean(angles, self.sizes[:, num_prefix:])
        return _Tokens(
            step.weighted_mean(self.x, self.sizes),
            step.sum(self.sizes[..., None])[..., 0],
            angles,
            step if self.plan is None else self.plan.then(step),
        )


def encode_merging(vit: VisionTransformer, pixels_B3HW: Tensor, removals: Sequence[int]) -> Compressed:
    """Run the blocks, merging after the attention of each but the last.

    Args:
        vit: the network up to the output block.
        pixels_B3HW: normalised pixels.
        removals: how many tokens each block but the last removes; at least one of them is not 0.
    """
    num_prefix = vit.config.num_prefix
    tokens = _embed(vit, pixels_B3HW)
    *earlier, last = vit.block_list()
    for block, num_remove in zip(earlier, removals, strict=True):
        attention = block.project(tokens.x, tokens.rotary())
        mixed_BSD = block.attend(tokens.x, attention, tokens.bias())
        tokens = _Tokens(mixed_BSD, tokens.sizes, tokens.angles, tokens.plan)
        if num_remove:
            keys_BSd = attention.plain_keys.view(*tokens.sizes.shape, block.num_heads, -1).mean(dim=2)
            tokens = tokens.merged(bipartite_plan(keys_BSd, num_remove, protected=num_prefix), num_prefix)
        tokens = _Tokens(block.transform(tokens.x), tokens.sizes, tokens.angles, tokens.plan)
    attention = last.project(tokens.x, tokens.rotary())
    out_BSD = last.transform(last.attend(tokens.x, attention, tokens.bias()))
    if tokens.plan is None:
        raise AssertionError("a schedule that removes nothing takes the plain path")
    return Compressed(out_BSD, attention, without_prefix(tokens.plan, num_prefix), tokens.sizes[:, num_prefix:])


def _embed(vit: VisionTransformer, pixels_B3HW: Tensor) -> _Tokens:
    x_BSD = vit.embed(pixels_B3HW)
    angles = None
    if vit.grid_rotary is not None:
        config, grid_hw = vit.config, vit.grid_of(pixels_B3HW)
        angles = _angles(grid_hw, config.head_dim, config.positions.theta, x_BSD.device)
        angles = angles.expand(len(x_BSD), -1, -1)
    return _Tokens(x_BSD, torch.ones(x_BSD.shape[:2], device=x_BSD.device), angles, None)


@lru_cache(maxsize=8)
def _angles(grid_hw: tuple[int, int], head_dim: int, theta: float, device: torch.device) -> Tensor:
    """The angles on a device. A CUDA graph would copy them again from host memory that is somebody else's by then."""
    # Kept for calls outside inference mode as well, which take no tensor that was made in it.
    with torch.inference_mode(False):
        return to_device(rotary_angles(grid_hw, head_dim, theta), device)


def without_prefix(plan: MergePlan, num_prefix: int) -> MergePlan:
    """The plan of the patches alone: prefix tokens are the first, and groups of their own."""
    return MergePlan(
        group=plan.group[:, num_prefix:] - num_prefix,
        num_groups=plan.num_groups - num_prefix,
        targets=plan.targets[:, num_prefix:] - num_prefix,
    )
