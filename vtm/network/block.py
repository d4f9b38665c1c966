"""One block of the network: LayerNorm, self-attention, dropout, merge, Linear, GELU (sections 3.2 to 3.4).

Letters: B windows, n tokens of a window, m after the merge, C channels in, D channels of the attention, h heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtm.merge import matched_plan
from vtm.network.attention import attend
from vtm.network.config import NetworkConfig
from vtm.network.targets import choose_targets
from vtm.plan import MergePlan

POOLING_SHARPNESS = 10.0
"""Scores lie in (-1, 1): this lets one token outweigh all others of a clip when scores pool them."""


@dataclass(frozen=True, eq=False)
class Windows:
    """What a block reads, window by window."""

    x: Tensor
    """(B, n, C) tokens."""
    cue: Tensor
    """(B, n) what `center`, `boundary` and `motion` partition by; of `weighted`, the tokens' log masses."""
    noise: Tensor
    """(B, n) Gumbel noise of the sampled strategies."""
    auxiliary: Tensor | None = None
    """(B, n, C) the previous block's auxiliary output; None where there is none, as in the first block."""


@dataclass(frozen=True, eq=False)
class BlockOutput:
    """What a block makes of its windows."""

    x: Tensor
    """(B, m, width) tokens."""
    auxiliary: Tensor | None
    """(B, m, width) the auxiliary path's tokens, grouped as the main path's."""
    plan: MergePlan | None
    """The merge of each window; None in the baseline."""
    log_mass: Tensor | None = None
    """(B, m) log of the summed weights of each token's sources, of `weighted` alone."""


class VideoBlock(nn.Module):
    """A transformer block over windows that may merge what its attention returns."""

    def __init__(self, config: NetworkConfig, width_in: int, width_out: int) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(width_in)
        self.to_qkv = nn.Linear(width_in, 3 * config.attention_width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.to_out = nn.Linear(config.attention_width, width_out)
        self.auxiliary_scale = config.auxiliary_factor(width_in)
        learnable = config.strategy == "learnable"
        self.to_saliency = nn.Linear(config.attention_width, 1, bias=False) if learnable else None
        pools = config.auxiliary == "pooling"
        self.pooled_head = nn.Linear(width_in, config.outputs) if pools else None

    def forward(self, windows: Windows, with_auxiliary: bool = False) -> BlockOutput:
        """Attend within each window, merge, and change the width.

        Args:
            windows: (B, n, C) tokens and what the partition needs.
            with_auxiliary: run the auxiliary path of a learnable block too, from the block's own input where there is
                no earlier auxiliary output.

        Returns:
            (B, m, width) tokens, m = n in the baseline.
        """
        q_BhNd, k_BhNd, v_BhNd, keys_BND = self._project(windows.x)
        attended_BND = self._attend(q_BhNd, k_BhNd, v_BhNd, 1 / math.sqrt(self.config.head_width))
        if self.config.strategy == "none":
            return BlockOutput(self._finish(attended_BND, None), None, None)
        saliency_BN = self._saliency_of_keys(keys_BND)
        plan = self._decide(windows, keys_BND, saliency_BN)
        auxiliary_BMC = None
        if with_auxiliary:
            if windows.auxiliary is not None:
                q_BhNd, k_BhNd, v_BhNd, _ = self._project(windows.auxiliary)
            aux_BND = self._attend(q_BhNd, k_BhNd, v_BhNd, self.auxiliary_scale, saliency_BN)
            auxiliary_BMC = self._finish(aux_BND, plan)
        return BlockOutput(self._finish(attended_BND, plan), auxiliary_BMC, plan)

    def saliency(self, x_BNC: Tensor) -> Tensor:
        """Equation 9, tanh(K U_s): the score of each token.

        Args:
            x_BNC: (B, N, C) the block's input, any number of windows together.

        Returns:
            (B, N) in (-1, 1).
        """
        assert self.to_saliency is not None, "only a learnable block has scores"
        width = self.config.attention_width
        keys_BND = F.linear(self.norm(x_BNC), self.to_qkv.weight[width : 2 * width])
        return torch.tanh(self.to_saliency(keys_BND).squeeze(2))

    def pooled_prediction(self, x_BNC: Tensor) -> Tensor:
        """What the scores make of the block's input: its tokens, weighted by softmax(10 s), through a linear head.

        A block without scores weights all tokens alike.

        Equation 10 adds s / √C to the logits, a twentieth at C = 384, so that hardly any gradient reaches the scores.
        Here a token counts by its score alone, and its loss tells U_s directly which tokens tell the classes apart.

        Args:
            x_BNC: (B, N, C) the block's input, whole clips.

        Returns:
            (B, outputs).
        """
        assert self.pooled_head is not None, "only a block with auxiliary `pooling` has this head"
        normed_BNC = self.norm(x_BNC)
        if self.to_saliency is None:
            pooled_BC = normed_BNC.mean(dim=1)
        else:
            weight_BN1 = (POOLING_SHARPNESS * self.saliency(x_BNC)).softmax(dim=1).unsqueeze(2)
            pooled_BC = (weight_BN1 * normed_BNC).sum(dim=1)
        prediction: Tensor = self.pooled_head(pooled_BC)
        return prediction

    def _project(self, x_BNC: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q_BND, k_BND, v_BND = self.to_qkv(self.norm(x_BNC)).chunk(3, dim=2)
        q_BhNd, k_BhNd, v_BhNd = (
            part.unflatten(2, (self.config.heads, self.config.head_width)).transpose(1, 2)
            for part in (q_BND, k_BND, v_BND)
        )
        return q_BhNd, k_BhNd, v_BhNd, k_BND

    def _attend(
        self, q_BhNd: Tensor, k_BhNd: Tensor, v_BhNd: Tensor, scale: float, saliency_BN: Tensor | None = None
    ) -> Tensor:
        attention = self.config.attention
        out_BhNd = attend(q_BhNd, k_BhNd, v_BhNd, scale=scale, attention=attention, saliency_BN=saliency_BN)
        out_BND: Tensor = self.dropout(out_BhNd.transpose(1, 2).flatten(2))
        return out_BND

    def _saliency_of_keys(self, keys_BND: Tensor) -> Tensor | None:
        return None if self.to_saliency is None else torch.tanh(self.to_saliency(keys_BND).squeeze(2))

    @torch.no_grad()
    def _decide(self, windows: Windows, keys_BND: Tensor, saliency_BN: Tensor | None) -> MergePlan:
        shape = (keys_BND.shape[0], keys_BND.shape[1])
        config = self.config
        score_BN = windows.cue if saliency_BN is None else config.draw_sharpness * saliency_BN
        target_BM = choose_targets(config.strategy, shape, config.partition_factor, score_BN, windows.noise)
        return matched_plan(keys_BND, target_BM, config.merge_share)

    def _finish(self, attended_BND: Tensor, plan: MergePlan | None) -> Tensor:
        merged_BMD = attended_BND if plan is None else plan.mean(attended_BND)
        return F.gelu(self.to_out(merged_BMD))
