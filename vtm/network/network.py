"""The paper's network: three blocks over growing windows, merging between them, and a head (sections 3.2 to 3.4).

Letters: B clips, N source patches of a clip, M tokens after all blocks, C channels, T, H, W frames, rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vtm.errors import NetworkError
from vtm.network.block import BlockOutput, VideoBlock, Windows
from vtm.network.config import NetworkConfig
from vtm.network.targets import area_cue
from vtm.network.weighted import WeightedBlock
from vtm.plan import Grid, MergePlan, identity_plan
from vtm.sampling import gumbel_noise
from vtm.windows import WindowLayout, layout_of, window_tokens

WINDOW_BYTES = {"cpu": 1 << 27, "cuda": 1 << 31}
"""What the windows that a block takes together may hold in activations, by device: near the caches, or a GPU filled."""

SAMPLED = ("motion", "learnable", "weighted")
SCORED = ("learnable", "weighted")
SEED_STRIDE = 1_000_003
"""Keeps the noise of a clip's blocks apart."""
SEEDS = 1 << 63


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """What the network makes of a batch of clips."""

    prediction: Tensor
    """(B, outputs): logits of a classification, values of a regression."""
    auxiliary: tuple[Tensor, ...]
    """(B, outputs) from the auxiliary path, or one a block where scores pool; none at inference and without scores."""
    tokens: Tensor
    """(B, M, width) final tokens, before the pooling."""
    plan: MergePlan
    """Which of the M tokens each of the N source patches ended in."""


@dataclass(frozen=True, eq=False)
class _State:
    """The tokens between two blocks."""

    x: Tensor
    auxiliary: Tensor | None
    plan: MergePlan
    motion: Tensor | None
    layout: WindowLayout
    log_mass: Tensor | None = None
    """(B, M) of `weighted`."""


class VideoTokenMerging(nn.Module):
    """The network of the paper, or its baseline where the strategy is `none`.

    What trains the scores of the learnable strategy runs in training mode only.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths_in = (config.in_width, *config.widths[:-1])
        kind = WeightedBlock if config.strategy == "weighted" else VideoBlock
        self.blocks = nn.ModuleList(kind(config, *pair) for pair in zip(widths_in, config.widths, strict=True))
        self.head = nn.Linear(config.widths[-1], config.outputs)
        learnable = config.strategy == "learnable"
        has_path = learnable and config.auxiliary == "attention"
        self.auxiliary_head = nn.Linear(config.widths[-1], config.outputs) if has_path else None

    def forward(
        self, patches_BNC: Tensor, grid: Grid, *, seeds: Sequence[int] | None = None, motion: Tensor | None = None
    ) -> NetworkOutput:
        """Predict from the patch tokens of clips.

        Args:
            patches_BNC: (B, N, in_width) in t, y, x order, in the dtype of the weights.
            grid: T, H, W with T·H·W = N.
            seeds: one a clip, for the sampled strategies; 0 for all by default. The same seed gives the same merge.
            motion: (B, N) magnitudes of motion, for the strategy `motion`.

        Returns:
            Predictions, final tokens and the merge of the N patches.

        Raises:
            NetworkError: a shape that the network cannot take, or a strategy that lacks its input.
        """
        self._check(patches_BNC, grid, seeds, motion)
        plan = identity_plan(len(patches_BNC), patches_BNC.shape[1], patches_BNC.device)
        layout = layout_of(window_tokens(grid, self.config.windows_frames[0]))
        log_mass = patches_BNC.new_zeros(patches_BNC.shape[:2]) if self.config.strategy == "weighted" else None
        state = _State(patches_BNC, None, plan, motion, layout, log_mass)
        auxiliary: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            assert isinstance(block, VideoBlock | WeightedBlock)
            if self.training and block.pooled_head is not None:
                auxiliary.append(block.pooled_prediction(state.x))
            state = self._run_block(index, state, grid, seeds or [0] * len(patches_BNC))
        if state.auxiliary is not None and self.auxiliary_head is not None:
            auxiliary.append(self.auxiliary_head(state.auxiliary.mean(dim=1)))
        if state.log_mass is None:
            pooled_BC = state.x.mean(dim=1)
        else:
            pooled_BC = (state.log_mass.softmax(dim=1).unsqueeze(2) * state.x).sum(dim=1)
        return NetworkOutput(self.head(pooled_BC), tuple(auxiliary), state.x, state.plan)

    def tokens(
        self, patches_BNC: Tensor, grid: Grid, *, seeds: Sequence[int] | None = None, motion: Tensor | None = None
    ) -> tuple[Tensor, MergePlan]:
        """The final tokens, (B, M, width), and the plan from the N source patches to them; arguments as `forward`."""
        output = self(patches_BNC, grid, seeds=seeds, motion=motion)
        return output.tokens, output.plan

    def saliency(self, patches_BNC: Tensor) -> Tensor:
        """Scores of the source patches by the first block (equation 9).

        Args:
            patches_BNC: (B, N, in_width).

        Returns:
            (B, N) in (-1, 1).

        Raises:
            NetworkError: the network's strategy has no scores.
        """
        if self.config.strategy not in SCORED:
            raise NetworkError(
                f"only a learnable or weighted network scores patches, this one's strategy is {self.config.strategy}"
            )
        first = self.blocks[0]
        assert isinstance(first, VideoBlock | WeightedBlock)
        return first.saliency(patches_BNC)

    def _run_block(self, index: int, state: _State, grid: Grid, seeds: Sequence[int]) -> _State:
        block, layout = self.blocks[index], state.layout
        with_auxiliary = self.training and self.auxiliary_head is not None
        parts = [
            _cat_outputs([block(piece, with_auxiliary) for piece in pieces])
            for pieces in self._windows(index, state, grid, seeds)
        ]
        windows = self.config.windows_frames
        growth = windows[index + 1] // windows[index] if index + 1 < len(windows) else 1
        xs = [part.x for part in parts]
        auxiliaries = [part.auxiliary for part in parts if part.auxiliary is not None]
        auxiliary = layout.join(auxiliaries) if auxiliaries else None
        plans = [part.plan for part in parts if part.plan is not None]
        plan, motion = state.plan, state.motion
        if plans:
            merge = layout.join_plans(plans)
            motion = None if motion is None else merge.mean(motion[..., None]).squeeze(2)
            plan = merge if index == 0 else plan.then(merge)
        masses = [part.log_mass for part in parts if part.log_mass is not None]
        log_mass = layout.join(masses) if masses else None
        return _State(layout.join(xs), auxiliary, plan, motion, layout.grown(xs, growth), log_mass)

    def _windows(self, index: int, state: _State, grid: Grid, seeds: Sequence[int]) -> list[list[Windows]]:
        """The block's input: pieces of the full windows, then the last window, where there are such."""
        strategy = self.config.strategy
        cue_BN = noise_BN = state.x.new_zeros(()).expand(state.x.shape[:2])
        if strategy in ("center", "boundary"):
            cue_BN = area_cue(strategy, state.plan, grid)
        elif state.log_mass is not None:
            cue_BN = state.log_mass
        elif state.motion is not None:
            cue_BN = state.motion
        if strategy in SAMPLED:
            block_seeds = [(seed * SEED_STRIDE + index) % SEEDS for seed in seeds]
            noise_BN = gumbel_noise(block_seeds, state.x.shape[1], state.x.device)
        tensors = (state.x, cue_BN, noise_BN) + (() if state.auxiliary is None else (state.auxiliary,))
        parts = []
        for part in zip(*(state.layout.split(tensor) for tensor in tensors), strict=True):
            together = self._windows_together(part[0])
            pieces = zip(*(torch.split(tensor, together) for tensor in part), strict=True)
            parts.append([Windows(*piece) for piece in pieces])
        return parts

    def _windows_together(self, x_BNC: Tensor) -> int:
        """How many windows fit the budget of the device; all of them while gradients keep the activations anyway."""
        windows, tokens, width = x_BNC.shape
        if torch.is_grad_enabled():
            return windows
        values = tokens * (width + 4 * self.config.attention_width)
        if self.config.attention == "plain":
            values += 2 * self.config.heads * tokens * tokens
        budget = WINDOW_BYTES["cpu" if x_BNC.device.type == "cpu" else "cuda"]
        return max(1, min(windows, budget // (values * x_BNC.element_size())))

    def _check(self, patches_BNC: Tensor, grid: Grid, seeds: Sequence[int] | None, motion: Tensor | None) -> None:
        if min(grid) < 1:
            raise NetworkError(f"a grid has at least one frame, row and column, got {tuple(grid)}")
        expected = f"(B, {grid[0] * grid[1] * grid[2]}, {self.config.in_width})"
        if patches_BNC.dim() != 3 or patches_BNC.shape[1:] != (grid[0] * grid[1] * grid[2], self.config.in_width):
            raise NetworkError(f"patches of grid {tuple(grid)} have shape {expected}, got {tuple(patches_BNC.shape)}")
        if seeds is not None and len(seeds) != len(patches_BNC):
            raise NetworkError(f"there is one seed a clip, got {len(seeds)} for {len(patches_BNC)} clips")
        if (motion is None) == (self.config.strategy == "motion"):
            raise NetworkError(
                f"the strategy {self.config.strategy} takes {'the' if motion is None else 'no'} motion of each patch"
            )
        if motion is not None and motion.shape != patches_BNC.shape[:2]:
            raise NetworkError(f"motion has shape {tuple(patches_BNC.shape[:2])}, got {tuple(motion.shape)}")


def _cat_outputs(pieces: Sequence[BlockOutput]) -> BlockOutput:
    if len(pieces) == 1:
        return pieces[0]
    auxiliaries = [piece.auxiliary for piece in pieces if piece.auxiliary is not None]
    plans = [piece.plan for piece in pieces if piece.plan is not None]
    masses = [piece.log_mass for piece in pieces if piece.log_mass is not None]
    return BlockOutput(
        torch.cat([piece.x for piece in pieces]),
        torch.cat(auxiliaries) if auxiliaries else None,
        MergePlan.cat(plans) if plans else None,
        torch.cat(masses) if masses else None,
    )
