"""A clip's frames -> what merging reads: the patches of all frames as one sequence.

Letters: T frames, H x W patch grid, N = T*H*W source patches, K tokens that the encoder leaves (N where it merges
nothing inside), D channels, d channels of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.encode.batches import FrameBatches
from vtm import Grid, MergePlan
from vtm.encoders import Encoder, EncoderOutput
from vtm.replay import Replayed, present


@dataclass(frozen=True, slots=True, eq=False)
class ClipFeatures:
    """A clip through the encoder, a batch of one."""

    grid: Grid
    """T, H, W of the source patches."""
    patches_1KD: Tensor
    """float32."""
    keys_1Kd: Tensor
    batch_frames: int
    """Frames that the encoder took at once."""
    saliency_1K: Tensor | None = None
    inside: MergePlan | None = None
    """Which token represents which patch, where the encoder merged inside."""
    encoded_patches: int | None = None
    """How many of the source patches were encoded, where those that did not change were not."""
    embedding_E: Tensor | None = None
    """float32, unit norm: the mean of the frames' image embeddings, where it is wanted."""

    def sources(self) -> Tensor:
        """(1, N, D) the token that represents each source patch."""
        return self.patches_1KD if self.inside is None else self.inside.spread(self.patches_1KD)

    @property
    def merge_grid(self) -> Grid:
        """T, H, W of the K tokens: those that the encoder has merged lie in a row in their frame."""
        return self.grid if self.inside is None else (self.grid[0], self.keys_1Kd.shape[1] // self.grid[0], 1)


class VitFeatures:
    """The project's own vision transformer over the frames of a clip."""

    def __init__(self, encoder: Encoder, batch_frames: int, *, embedding: bool = False, compiled: bool = False) -> None:
        self._encoder = encoder
        # What torch's compiler makes has few launches, and is not captured once more.
        self._run = self._tensors if compiled else Replayed(self._tensors)
        self._batches = FrameBatches(encoder.device, batch_frames)
        self._embedding = embedding

    def __call__(self, frames_THW3: NDArray[np.uint8], *, saliency: bool = False) -> ClipFeatures:
        """Encode frames of the encoder's size, (T, h, w, 3) uint8 RGB."""
        outputs = self._batches(frames_THW3, partial(self._encode, saliency=saliency))
        plans = [(out.plan, count) for out, count in outputs if out.plan is not None]
        scores = [out.saliency[:count] for out, count in outputs if out.saliency is not None]
        pooled = [out.pooled[:count] for out, count in outputs if out.pooled is not None]
        return ClipFeatures(
            grid=(len(frames_THW3), *self._encoder.grid_hw),
            patches_1KD=torch.cat([out.patches[:count] for out, count in outputs]).flatten(0, 1)[None].float(),
            keys_1Kd=torch.cat([out.keys[:count] for out, count in outputs]).flatten(0, 1)[None],
            batch_frames=self._batches.batch_frames,
            saliency_1K=torch.cat(scores).flatten()[None] if scores else None,
            inside=_side_by_side(plans) if plans else None,
            embedding_E=mean_direction(torch.cat(pooled)) if pooled else None,
        )

    def _encode(self, frames_BHW3: Tensor, saliency: bool) -> EncoderOutput:
        patches, keys, pooled, scores, group, targets = self._run(frames_BHW3, saliency=saliency)
        plan = None
        if group is not None and targets is not None:
            plan = MergePlan(group, targets.shape[1], targets)
        return EncoderOutput(patches=present(patches), keys=present(keys), pooled=pooled, saliency=scores, plan=plan)

    def _tensors(self, frames_BHW3: Tensor, *, saliency: bool) -> tuple[Tensor | None, ...]:
        """What is read of the encoder's output, as tensors alone."""
        out: EncoderOutput = self._encoder(self._encoder.normalise(frames_BHW3), saliency=saliency)
        plan = (None, None) if out.plan is None else (out.plan.group, out.plan.targets)
        return out.patches, out.keys, out.pooled if self._embedding else None, out.saliency, *plan


def mean_direction(vectors_TE: Tensor) -> Tensor:
    """(E,) float32 of unit norm: the mean of vectors that count alike, however long each is."""
    directions_TE = normalize(vectors_TE.float(), dim=1)
    return normalize(directions_TE.mean(dim=0), dim=0)


def _side_by_side(plans: list[tuple[MergePlan, int]]) -> MergePlan:
    """Plans of single frames as one plan of the clip."""
    frames = MergePlan.cat(
        [MergePlan(plan.group[:count], plan.num_groups, plan.targets[:count]) for plan, count in plans]
    )
    return frames.tile(len(frames.group))
