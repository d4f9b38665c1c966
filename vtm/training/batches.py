"""What training reads: batches of clips of one grid, made by whoever knows where clips are kept.

Letters: B clips, N patches of a clip, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vtm.plan import Grid


@dataclass(frozen=True, eq=False, kw_only=True)
class ClipBatch:
    """Clips of equal grids, with what is known of them."""

    patches: Tensor
    """(B, N, C) float tokens in t, y, x order."""
    grid: Grid
    """T, H, W with T·H·W = N."""
    seeds: tuple[int, ...]
    """One a clip, for sampled partitions: another one in each epoch of training, the clip's own elsewhere."""
    target: Tensor | None = None
    """(B,) int64 classes or float32 values; None without labels."""
    videos: tuple[str, ...] = ()
    """The video of each clip; predictions are averaged over a video's clips."""
    motion: Tensor | None = None
    """(B, N) magnitudes of motion, for the strategy `motion`."""

    def to(self, device: torch.device) -> ClipBatch:
        """The same clips on another device, their patches in float32."""
        return replace(
            self,
            patches=self.patches.to(device, torch.float32),
            target=None if self.target is None else self.target.to(device),
            motion=None if self.motion is None else self.motion.to(device, torch.float32),
        )


EpochBatches = Callable[[int], Iterable[ClipBatch]]
"""The batches of an epoch: the same number in each epoch, and the same batches whenever an epoch is asked for again."""
