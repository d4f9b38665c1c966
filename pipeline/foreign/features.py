"""Frames -> features by a model of `transformers`; all merging comes after it.

Letters: T frames of a clip, P passes of F frames each, h x w pixels, R token rows of a pass, T' = ceil(T / frames of a
tubelet) token rows of the clip, H x W patch grid, D channels.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.features import ClipFeatures
from pipeline.foreign.model import Geometry
from vtm.encoders.image import normalise
from vtm.encoders.threads import map_on_threads


class ForeignFeatures:
    """A model of `transformers` over the frames of a clip: pictures one by one, videos in the model's own length."""

    def __init__(self, model: nn.Module, geometry: Geometry, batch_frames: int) -> None:
        self._model = model
        self._geometry = geometry
        self._batch_passes = max(1, batch_frames // geometry.input.frames_per_pass)
        weight = next(model.parameters())
        self._device, self._dtype = weight.device, weight.dtype

    def __call__(self, frames_THW3: NDArray[np.uint8], *, saliency: bool = False) -> ClipFeatures:
        """Encode frames of the encoder's size, (T, h, w, 3) uint8 RGB.

        The last pass is filled up by repeating the last frame; token rows that hold nothing else are dropped. The
        features are the keys as well: `transformers` hands out no keys.

        Raises:
            ValueError: saliency is asked for, which a model that is not our own does not give.
        """
        if saliency:
            raise ValueError(f"{self._geometry.architecture} gives no saliency")
        given = self._geometry.input
        passes = [torch.from_numpy(part) for part in cut_passes(frames_THW3, given.frames_per_pass)]
        if self._device.type == "cpu":
            rows = map_on_threads(partial(self._encode, 1), [[part] for part in passes])
        else:
            batches = [passes[i : i + self._batch_passes] for i in range(0, len(passes), self._batch_passes)]
            rows = [self._encode(self._batch_passes, batch) for batch in batches]
        num_rows = -(-len(frames_THW3) // given.frames_per_token_row)
        patches_1ND = torch.cat(rows)[:num_rows].flatten(0, 1)[None]
        return ClipFeatures(
            grid=(num_rows, *self._geometry.layout.grid_hw), patches_1KD=patches_1ND, keys_1Kd=patches_1ND
        )

    def _encode(self, batch: int, passes: list[Tensor]) -> Tensor:
        """Some passes at a time, filled up to a fixed number: kernels round differently for other shapes.

        Args:
            batch: P, how many passes the model takes.
            passes: at most so many, (F, h, w, 3) uint8 each.

        Returns:
            (token rows, H*W, D) float32.
        """
        frames_PFhw3 = torch.stack(passes + passes[-1:] * (batch - len(passes)))
        pixels = normalise(frames_PFhw3.flatten(0, 1), self._geometry.image, self._device).to(self._dtype)
        patches_PRND = self._geometry.patches(self._model, pixels.reshape(*frames_PFhw3.shape[:2], *pixels.shape[1:]))
        return patches_PRND[: len(passes)].flatten(0, 1).float()


def cut_passes(frames_THW3: NDArray[np.uint8], frames_per_pass: int) -> list[NDArray[np.uint8]]:
    """Cut a clip into the model's own length, in order; the last frame is repeated to fill the last pass."""
    passes = []
    for start in range(0, len(frames_THW3), frames_per_pass):
        part = frames_THW3[start : start + frames_per_pass]
        missing = frames_per_pass - len(part)
        # Always a copy: frames that came through shared memory are read-only, which torch would warn of.
        passes.append(np.concatenate((part, part[-1:].repeat(missing, axis=0))))
    return passes
