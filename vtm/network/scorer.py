"""Equation 9 on its own: a score for each patch, as a network of the strategies `learnable` or `weighted` learnt it.

Letters: B clips, N patches, C channels, D channels of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vtm.errors import NetworkError
from vtm.network.block import VideoBlock
from vtm.network.config import WEIGHT_SHARPNESS
from vtm.network.network import VideoTokenMerging
from vtm.network.weighted import WeightedBlock
from vtm.plan import Grid

Reads = Literal["patches", "keys"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerConfig:
    """Widths of a scorer, and what of the encoder it reads.

    Raises:
        NetworkError: a width below 1, or something else to read.
    """

    in_width: int
    """C."""
    key_width: int = 64
    """D of equation 9."""
    reads: Reads = "patches"
    """The encoder's patch tokens, or the keys of its last block."""
    weight_sharpness: float = WEIGHT_SHARPNESS
    """a of the weights exp(a · s), as `NetworkConfig` has it."""

    def __post_init__(self) -> None:
        if min(self.in_width, self.key_width) < 1:
            raise NetworkError(f"widths are at least 1, got in_width {self.in_width} and key_width {self.key_width}")
        if self.reads not in ("patches", "keys"):
            raise NetworkError(f"a scorer reads patches or keys, got {self.reads!r}")


class SaliencyScorer(nn.Module):
    """S = tanh(K U_s), K = LayerNorm(X) U_k (equations 7 and 9)."""

    def __init__(self, config: ScorerConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.in_width)
        self.to_keys = nn.Linear(config.in_width, config.key_width, bias=False)
        self.to_saliency = nn.Linear(config.key_width, 1, bias=False)

    @property
    def reads(self) -> Reads:
        """What `forward` wants: the encoder's `patches`, or its `keys`."""
        return self.config.reads

    def forward(self, x_BNC: Tensor, grid: Grid) -> Tensor:
        """Score every patch.

        Args:
            x_BNC: (B, N, in_width) of the encoder, any float dtype, in t, y, x order.
            grid: T, H, W with T·H·W = N.

        Returns:
            (B, N) in (-1, 1), in the dtype of the weights; sampling targets from its softmax is the learnable strategy.

        Raises:
            NetworkError: another width, or a grid that does not hold N patches.
        """
        if x_BNC.dim() != 3 or x_BNC.shape[1:] != (grid[0] * grid[1] * grid[2], self.config.in_width):
            raise NetworkError(
                f"the scorer reads {self.reads} of shape (B, {grid[0] * grid[1] * grid[2]}, {self.config.in_width}), "
                f"got {tuple(x_BNC.shape)}"
            )
        keys_BND: Tensor = self.to_keys(self.norm(x_BNC.to(self.to_keys.weight.dtype)))
        saliency_BN1: Tensor = self.to_saliency(keys_BND).tanh()
        return saliency_BN1.squeeze(2)

    def weights(self, x_BNC: Tensor, grid: Grid) -> Tensor:
        """What each patch counts in a weighted merge, exp(a · s) of its score s.

        Args:
            x_BNC: as for `forward`, and so `grid` and the errors.
            grid: T, H, W.

        Returns:
            (B, N) above 0, in the dtype of the weights.
        """
        return torch.exp(self.config.weight_sharpness * self(x_BNC, grid))


def scorer_of_network(network: VideoTokenMerging) -> SaliencyScorer:
    """The scorer inside the first block of a learnable network (equation 9), or of a weighted one.

    Args:
        network: on the CPU or wherever the scorer is to be; norm and U_s are shared with it.

    Returns:
        A scorer of patches, in evaluation mode.

    Raises:
        NetworkError: the network's strategy is another one.
    """
    first = network.blocks[0]
    in_width, sharpness = network.config.in_width, network.config.weight_sharpness
    if isinstance(first, WeightedBlock):
        weighted = SaliencyScorer(ScorerConfig(in_width=in_width, key_width=1, weight_sharpness=sharpness))
        weighted.norm = first.norm
        weighted.to_keys.weight = first.to_score.weight
        nn.init.ones_(weighted.to_saliency.weight)
        return weighted.to(first.to_score.weight.device).eval()
    if not isinstance(first, VideoBlock) or first.to_saliency is None:
        raise NetworkError(
            f"only a learnable or weighted network has a scorer, this one's strategy is {network.config.strategy}"
        )
    width = network.config.attention_width
    scorer = SaliencyScorer(ScorerConfig(in_width=in_width, key_width=width, weight_sharpness=sharpness))
    scorer.norm = first.norm
    scorer.to_keys.weight = nn.Parameter(first.to_qkv.weight.detach()[width : 2 * width])
    scorer.to_saliency = first.to_saliency
    return scorer.eval()
