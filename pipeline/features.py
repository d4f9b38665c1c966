"""A clip's frames -> what merging reads: the patches of all frames as one sequence.

Letters: T frames, H x W patch grid, N = T*H*W source patches, K tokens that the encoder leaves (N where it merges
nothing inside), D channels, d channels of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtm import Grid, MergePlan
from vtm.encoders import Encoder, EncoderOutput


@dataclass(frozen=True, slots=True, eq=False)
class ClipFeatures:
    """A clip through the encoder, a batch of one."""

    grid: Grid
    """T, H, W of the source patches."""
    patches_1KD: Tensor
    """float32."""
    keys_1Kd: Tensor
    saliency_1K: Tensor | None = None
    inside: MergePlan | None = None
    """Which token stands for which patch, where the encoder merged inside."""
    encoded_patches: int | None = None
    """How many of the source patches were encoded, where those that did not change were not."""

    def sources(self) -> Tensor:
        """(1, N, D) the token that stands for each source patch."""
        return self.patches_1KD if self.inside is None else self.inside.spread(self.patches_1KD)

    @property
    def merge_grid(self) -> Grid:
        """T, H, W of the K tokens: those that the encoder has merged lie in a row in their frame."""
        return self.grid if self.inside is None else (self.grid[0], self.keys_1Kd.shape[1] // self.grid[0], 1)


class VitFeatures:
    """The project's own vision transformer over the frames of a clip."""

    def __init__(self, encoder: Encoder, batch_frames: int) -> None:
        self._encoder = encoder
        self._batch_frames = batch_frames

    def __call__(self, frames_THW3: NDArray[np.uint8], *, saliency: bool = False) -> ClipFeatures:
        """Encode frames of the encoder's size, (T, h, w, 3) uint8 RGB."""
        blocks = [
            frames_THW3[start : start + self._batch_frames] for start in range(0, len(frames_THW3), self._batch_frames)
        ]
        outputs = [(self._encode(block, saliency), len(block)) for block in blocks]
        plans = [(out.plan, count) for out, count in outputs if out.plan is not None]
        scores = [out.saliency[:count] for out, count in outputs if out.saliency is not None]
        return ClipFeatures(
            grid=(len(frames_THW3), *self._encoder.grid_hw),
            patches_1KD=torch.cat([out.patches[:count] for out, count in outputs]).flatten(0, 1)[None].float(),
            keys_1Kd=torch.cat([out.keys[:count] for out, count in outputs]).flatten(0, 1)[None],
            saliency_1K=torch.cat(scores).flatten()[None] if scores else None,
            inside=_side_by_side(plans) if plans else None,
        )

    def _encode(self, block_BHW3: NDArray[np.uint8], saliency: bool) -> EncoderOutput:
        """One batch; on a GPU of one fixed shape, the last one padded.

        Kernels round differently for other shapes, and a clip's bytes may not depend on how its frames were grouped.
        On a CPU the encoder takes each frame for itself.
        """
        missing = self._batch_frames - len(block_BHW3)
        if missing and self._encoder.device.type != "cpu":
            block_BHW3 = np.concatenate((block_BHW3, np.zeros((missing, *block_BHW3.shape[1:]), dtype=np.uint8)))
        # Frames that came through shared memory are read-only, which torch would warn of; nothing here writes to them.
        pixels = torch.from_numpy(block_BHW3 if block_BHW3.flags.writeable else block_BHW3.copy())
        output: EncoderOutput = self._encoder(self._encoder.normalise(pixels), saliency=saliency)
        return output


def _side_by_side(plans: list[tuple[MergePlan, int]]) -> MergePlan:
    """Plans of single frames as one plan of the clip."""
    group_TP = torch.cat([plan.group[:count] for plan, count in plans])
    targets_TQ = torch.cat([plan.targets[:count] for plan, count in plans])
    frame_T1 = torch.arange(len(group_TP), device=group_TP.device)[:, None]
    groups, patches = targets_TQ.shape[1], group_TP.shape[1]
    return MergePlan(
        group=(group_TP + frame_T1 * groups).flatten()[None],
        num_groups=len(group_TP) * groups,
        targets=(targets_TQ + frame_T1 * patches).flatten()[None],
    )
