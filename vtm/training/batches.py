"""What training reads: batches of clips of one grid, made by whoever knows where clips are kept.

Letters: B clips, N patches of a clip, K merged tokens of all clips, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vtm.motion import token_motion
from vtm.plan import Grid
from vtm.upload import to_device


@dataclass(frozen=True, eq=False, kw_only=True)
class ClipBatch:
    """Clips of equal grids, with what is known of them."""

    patches: Tensor
    """(B, N, C) float tokens in t, y, x order; or, with `rows`, the (K, C) merged tokens that represent them."""
    grid: Grid
    """T, H, W with T·H·W = N."""
    seeds: tuple[int, ...]
    """One a clip, for sampled partitions: another one in each epoch of training, the clip's own elsewhere."""
    target: Tensor | None = None
    """(B,) int64 classes or float32 values; None without labels."""
    videos: tuple[str, ...] = ()
    """The video of each clip; predictions are averaged over a video's clips."""
    rows: Tensor | None = None
    """(B, N) int64 in [0, K): the merged token of each patch. Merged tokens are a tenth of what patches are to copy."""
    motion: Tensor | None = None
    """(B, N) magnitudes of motion, for the strategy `motion`."""
    wants_motion: bool = False
    """Whether `to` computes the motion from the tokens."""
    counts: bool = True
    """Whether a step learns from it: a process that gets none of a step's clips computes one of another's for nothing,
    so that the same parameters have gradients everywhere."""

    def to(self, device: torch.device) -> ClipBatch:
        """The same clips on another device, each patch with its token, in float32; a GPU is not waited for."""
        patches = to_device(self.patches, device).float()
        if self.rows is not None:
            rows_BN = to_device(self.rows, device)
            patches = patches.index_select(0, rows_BN.flatten()).view(*rows_BN.shape, patches.shape[1])
        motion_BN = None if self.motion is None else to_device(self.motion, device).float()
        return replace(
            self,
            patches=patches,
            rows=None,
            target=None if self.target is None else to_device(self.target, device),
            motion=token_motion(patches, self.grid) if self.wants_motion else motion_BN,
            wants_motion=False,
        )


EpochBatches = Callable[[int], Iterable[ClipBatch]]
"""The batches of an epoch: the same number in each epoch, and the same batches whenever an epoch is asked for again.

Of several processes, each gets its part of every batch."""
