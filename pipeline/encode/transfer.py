"""Frames to the encoder's device, while it computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Transfer:
    """Takes blocks of uint8 values to a device.

    To a GPU they go through pinned memory, on a stream of their own: a block is copied while the GPU still computes on
    the block before, as long as nobody waits for that one's result in between. The host never waits for the GPU here.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copying: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, blocks: Iterable[NDArray[np.uint8]]) -> Iterator[Tensor]:
        """Each block as a tensor on the device, in order."""
        for block in blocks:
            yield as_tensor(block).to(self._device) if self._copying is None else self._copied(block, self._copying)

    def _copied(self, block: NDArray[np.uint8], copying: torch.cuda.Stream) -> Tensor:
        # torch keeps a pinned block until the copies that read it are done, so it may be dropped at once.
        with torch.cuda.stream(copying):
            copied = as_tensor(block).pin_memory().to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(copying)
        # Its memory belongs to the copying stream, which may not take it back while the other still reads it.
        copied.record_stream(computing)
        return copied


def as_tensor(block: NDArray[np.uint8]) -> Tensor:
    """The array as a tensor; copied if it is read-only, as frames from shared memory are, which torch would warn of."""
    return torch.from_numpy(block if block.flags.writeable else block.copy())
