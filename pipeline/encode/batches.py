"""Frames through the encoder in batches of one shape, which halves when the device's memory runs out.

Letters: T frames of a clip, B of a batch, h x w pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from pipeline.encode.transfer import Transfer
from pipeline.progress import made_progress

Out = TypeVar("Out")
log = logging.getLogger(__name__)


class BatchSize:
    """How many frames at once the device has memory for."""

    def __init__(self, device: torch.device, frames: int) -> None:
        self._device = device
        self.frames = frames

    def attempt(self, run: Callable[[], Out]) -> Out | None:
        """What `run` returns; None where the memory ran out, after which `frames` is half.

        Raises:
            torch.OutOfMemoryError: the device has no memory for a single frame.
        """
        try:
            output = run()
            made_progress()
            return output
        except torch.OutOfMemoryError:
            if self.frames == 1:
                raise
        # Only here, with the failed attempt's tensors gone, is there something to give back to the device.
        torch.cuda.empty_cache()
        before, self.frames = self.frames, self.frames // 2
        log.warning(
            "%s has no memory to encode %d frames at once: %d from now on (--batch-frames %d starts with that)",
            *(self._device, before, self.frames, self.frames),
        )
        return None


class FrameBatches:
    """Cuts clips into batches; remembers how many frames the device has memory for.

    On a GPU the last batch is padded: kernels round differently for other shapes, and a clip's bytes may not depend on
    how its frames were grouped, nor on the clips beside it, so batches hold frames of one clip only. A CPU's do not, so
    there nothing is padded.
    """

    def __init__(self, device: torch.device, batch_frames: int) -> None:
        self._device = device
        self._transfer = Transfer(device)
        self._size = BatchSize(device, batch_frames)

    @property
    def batch_frames(self) -> int:
        """B from now on."""
        return self._size.frames

    def __call__(self, frames_Thw3: NDArray[np.uint8], encode: Callable[[Tensor], Out]) -> list[tuple[Out, int]]:
        """Encode a clip.

        Args:
            frames_Thw3: RGB.
            encode: takes (B, h, w, 3) uint8 on the device.

        Returns:
            What `encode` made of the batches, in order, each with how many of its frames are no padding.

        Raises:
            torch.OutOfMemoryError: the device has no memory for a single frame.
        """
        starts = range(0, len(frames_Thw3), self.batch_frames)
        blocks = [frames_Thw3[start : start + self.batch_frames] for start in starts]
        return [output for block_Bhw3 in self._transfer(blocks) for output in self._encoded(block_Bhw3, encode)]

    def _encoded(self, block_Bhw3: Tensor, encode: Callable[[Tensor], Out]) -> Iterator[tuple[Out, int]]:
        done = 0
        while done < len(block_Bhw3):
            batch_Bhw3 = block_Bhw3[done : done + self.batch_frames]
            shaped_Bhw3 = batch_Bhw3 if self._device.type == "cpu" else padded(batch_Bhw3, self.batch_frames)
            output = self._size.attempt(partial(encode, shaped_Bhw3))
            if output is not None:
                yield output, len(batch_Bhw3)
                done += len(batch_Bhw3)


def padded(frames_Bhw3: Tensor, batch_frames: int) -> Tensor:
    """The frames followed by black ones, so that there are `batch_frames`."""
    return pad(frames_Bhw3, (0, 0, 0, 0, 0, 0, 0, batch_frames - len(frames_Bhw3)))
