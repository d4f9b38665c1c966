"""Frames -> features by a model of `transformers`; all merging comes after it.

Letters: T frames of a clip, P passes, B of a batch, F frames of a pass, h x w pixels, R token rows of a pass,
T' = ceil(T / frames of a tubelet) token rows of the clip, H x W patch grid, D channels.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.encode.batches import FrameBatches
from pipeline.encode.features import ClipFeatures
from pipeline.encode.foreign.families import Input
from vtm.encoders import ImageSpec
from vtm.encoders.image import standardise
from vtm.encoders.threads import map_on_threads


class Passes(Protocol):
    """How a model is called."""

    @property
    def architecture(self) -> str:
        """Class of `transformers`."""

    @property
    def image(self) -> ImageSpec:
        """Size and normalisation of its frames."""

    @property
    def input(self) -> Input:
        """How it takes frames."""

    def grid_hw(self, frame_hw: tuple[int, int]) -> tuple[int, int]:
        """H, W of frames of this size."""

    def patches(self, model: nn.Module, pixels_BF3hw: Tensor) -> Tensor:
        """Run B passes of F frames: (B, R, H*W, D)."""


class ForeignFeatures:
    """A model of `transformers` over the frames of a clip: pictures one by one, videos in the model's own length."""

    def __init__(self, model: nn.Module, geometry: Passes, batch_frames: int) -> None:
        self._model = model
        self._geometry = geometry
        weight = next(model.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        # A CPU takes each pass for itself anyway.
        together = 1 if self._device.type == "cpu" else geometry.input.frames_per_pass
        self._frames_together = together
        self._batches = FrameBatches(self._device, max(1, batch_frames // together))

    def __call__(self, frames_THW3: NDArray[np.uint8], *, saliency: bool = False) -> ClipFeatures:
        """Encode frames of the encoder's size, (T, h, w, 3) uint8 RGB.

        The last pass is filled up by repeating the last frame; token rows that hold nothing else are dropped. The
        features are the keys as well: `transformers` hands out no keys.

        Raises:
            ValueError: saliency is asked for, which a model that is not our own does not give.
        """
        if saliency:
            raise ValueError(f"{self._geometry.architecture} gives no saliency")
        given, (height_px, width_px) = self._geometry.input, frames_THW3.shape[1:3]
        grid_hw = self._geometry.grid_hw((height_px, width_px))
        passes_PFhw3 = cut_passes(frames_THW3, given.frames_per_pass)
        # The frames of a pass one below the other: a batch is one of pictures.
        outputs = self._batches(passes_PFhw3.reshape(len(passes_PFhw3), -1, *frames_THW3.shape[2:]), self._encode)
        rows = torch.cat([patches_BRND[:count] for patches_BRND, count in outputs]).flatten(0, 1)
        num_rows = -(-len(frames_THW3) // given.tubelet_frames)
        patches_1ND = rows[:num_rows].flatten(0, 1)[None]
        return ClipFeatures(
            grid=(num_rows, *grid_hw),
            patches_1KD=patches_1ND,
            keys_1Kd=patches_1ND,
            batch_frames=self._batches.batch_frames * self._frames_together,
        )

    def _encode(self, tall_Bhw3: Tensor) -> Tensor:
        """Passes with their frames one below the other, uint8 -> (B, R, H*W, D) float32."""
        if self._device.type == "cpu":
            return torch.cat(map_on_threads(self._run, torch.split(tall_Bhw3, 1)))
        return self._run(tall_Bhw3)

    def _run(self, tall_Bhw3: Tensor) -> Tensor:
        image, passes = self._geometry.image, len(tall_Bhw3)
        frames_Nhw3 = tall_Bhw3.reshape(passes * self._geometry.input.frames_per_pass, -1, *tall_Bhw3.shape[2:])
        pixels_N3hw = standardise(frames_Nhw3, image, self._device).permute(0, 3, 1, 2).to(self._dtype)
        pixels_BF3hw = pixels_N3hw.reshape(passes, -1, *pixels_N3hw.shape[1:])
        return self._geometry.patches(self._model, pixels_BF3hw).float()


def cut_passes(frames_THW3: NDArray[np.uint8], frames_per_pass: int) -> NDArray[np.uint8]:
    """Cut a clip into the model's own length, in order: (P, F, h, w, 3); the last frame is repeated to fill it up."""
    missing = -len(frames_THW3) % frames_per_pass
    filled = np.concatenate((frames_THW3, frames_THW3[-1:].repeat(missing, axis=0))) if missing else frames_THW3
    return filled.reshape(-1, frames_per_pass, *frames_THW3.shape[1:])
