"""A block that merges before it attends, by weights that the task's own loss trains.

The paper's learnable block (section 3.4) draws its targets by a score, which passes no gradient, so that an auxiliary
loss has to train the score. Here a score is a token's weight w = exp(a · s). The grouping is a value without gradient;
the weights enter all that follows: a group is Σ w·x / Σ w, it counts in attention and in the prediction by its mass
Σ w. So the loss of the prediction reaches the score, and what is merged is merged before attention has mixed it.

Letters: B windows, n tokens of a window, m after the merge, C channels in, D channels of the attention, h heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtm.merge import matched_plan
from vtm.network.attention import attend
from vtm.network.block import BlockOutput, Windows
from vtm.network.config import NetworkConfig
from vtm.plan import MergePlan
from vtm.sampling import sampled_targets


class WeightedBlock(nn.Module):
    """LayerNorm, weights, merge, self-attention over what is left, dropout, Linear, GELU."""

    def __init__(self, config: NetworkConfig, width_in: int, width_out: int) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(width_in)
        self.to_score = nn.Linear(width_in, 1, bias=False)
        self.to_qkv = nn.Linear(width_in, 3 * config.attention_width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.to_out = nn.Linear(config.attention_width, width_out)
        self.pooled_head = nn.Linear(width_in, config.outputs) if config.auxiliary == "pooling" else None

    def forward(self, windows: Windows, with_auxiliary: bool = False) -> BlockOutput:
        """Merge each window, attend within it, and change the width.

        Args:
            windows: (B, n, C) tokens, their log masses as the cue, and the noise of the draw.
            with_auxiliary: no such path here.

        Returns:
            (B, m, width) tokens and their log masses.
        """
        normed_BnC = self.norm(windows.x)
        log_weight_Bn = self.config.weight_sharpness * self._score(normed_BnC)
        plan = self._decide(normed_BnC, log_weight_Bn, windows.noise)
        log_mass_Bn = log_weight_Bn + windows.cue
        # The heaviest token of a group counts 1: what is common to a group cancels, and nothing overflows or vanishes.
        top_Bm = log_mass_Bn.new_full(plan.targets.shape, -torch.inf)
        top_Bm = top_Bm.scatter_reduce(1, plan.group, log_mass_Bn.detach(), "amax")
        weight_Bn = torch.exp(log_mass_Bn - top_Bm.gather(1, plan.group))
        merged_BmC = plan.weighted_mean(normed_BnC, weight_Bn)
        log_mass_Bm = plan.sum(weight_Bn[..., None])[..., 0].log() + top_Bm
        attended_BmD = self.dropout(self._attended(merged_BmC, log_mass_Bm))
        return BlockOutput(F.gelu(self.to_out(attended_BmD)), None, plan, log_mass_Bm)

    def saliency(self, x_BNC: Tensor) -> Tensor:
        """The score s of each token; its weight is exp(a · s).

        Args:
            x_BNC: (B, N, C) the block's input.

        Returns:
            (B, N) in (-1, 1).
        """
        return self._score(self.norm(x_BNC))

    def pooled_prediction(self, x_BNC: Tensor) -> Tensor:
        """What the weights make of the block's input: its weighted mean through a linear head, (B, outputs)."""
        assert self.pooled_head is not None, "only a block with auxiliary `pooling` has this head"
        normed_BNC = self.norm(x_BNC)
        weight_BN1 = (self.config.weight_sharpness * self._score(normed_BNC)).softmax(dim=1).unsqueeze(2)
        prediction: Tensor = self.pooled_head((weight_BN1 * normed_BNC).sum(dim=1))
        return prediction

    def _score(self, normed_BnC: Tensor) -> Tensor:
        return torch.tanh(self.to_score(normed_BnC).squeeze(2))

    @torch.no_grad()
    def _decide(self, normed_BnC: Tensor, log_weight_Bn: Tensor, noise_Bn: Tensor) -> MergePlan:
        """Targets drawn in proportion to a power of the weights; the others join the nearest."""
        config, total = self.config, normed_BnC.shape[1]
        count = (total + config.partition_factor - 1) // config.partition_factor
        target_BM = sampled_targets(config.draw_sharpness * log_weight_Bn, count, noise_Bn)
        return matched_plan(normed_BnC, target_BM, config.merge_share)

    def _attended(self, merged_BmC: Tensor, log_mass_Bm: Tensor) -> Tensor:
        """Self-attention in which a group counts by its mass: (B, m, D)."""
        heads, width = self.config.heads, self.config.head_width
        q_Bhmd, k_Bhmd, v_Bhmd = (
            part.unflatten(2, (heads, width)).transpose(1, 2) for part in self.to_qkv(merged_BmC).chunk(3, dim=2)
        )
        scale = 1 / math.sqrt(width)
        # Masses differ by what is common to a window alone, which softmax does not see.
        bias_Bm = (log_mass_Bm - log_mass_Bm.detach().amax(dim=1, keepdim=True)) / scale
        out_Bhmd = attend(q_Bhmd, k_Bhmd, v_Bhmd, scale=scale, attention=self.config.attention, saliency_BN=bias_Bm)
        return out_Bhmd.transpose(1, 2).flatten(2)
