"""A clip's frames -> what merging reads, where patches that did not change are not encoded again."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.encode.batches import BatchSize
from pipeline.encode.features import ClipFeatures
from vtm.encoders import Encoder
from vtm.encoders.reuse import is_encoded, reuse_map
from vtm.encoders.reuse.sweep import encode_changed


class ReusingFeatures:
    """The project's own vision transformer over a clip, called as `VitFeatures` is.

    The first frame of each clip is encoded whole, so that a clip's bytes depend on the clip alone.
    """

    def __init__(self, encoder: Encoder, batch_frames: int, levels: float) -> None:
        self._encoder = encoder
        self._size = BatchSize(encoder.device, batch_frames)
        self._levels = levels

    def __call__(self, frames_Thw3: NDArray[np.uint8], *, saliency: bool = False) -> ClipFeatures:
        """Encode frames of the encoder's size, (T, h, w, 3) uint8 RGB."""
        # Frames that came through shared memory are read-only, which torch would warn of; nothing here writes to them.
        frames = torch.from_numpy(frames_Thw3 if frames_Thw3.flags.writeable else frames_Thw3.copy())
        source_TN = reuse_map(frames, self._encoder.config.patch_px, self._levels)
        output = None
        while output is None:
            encode = partial(encode_changed, self._encoder, frames, source_TN, batch_frames=self._size.frames)
            output = self._size.attempt(partial(encode, saliency=saliency))
        return ClipFeatures(
            grid=(len(frames), *self._encoder.grid_hw),
            patches_1KD=output.patches.flatten(0, 1)[None].float(),
            keys_1Kd=output.keys.flatten(0, 1)[None],
            batch_frames=self._size.frames,
            saliency_1K=None if output.saliency is None else output.saliency.flatten()[None],
            encoded_patches=int(is_encoded(source_TN).sum()),
        )
