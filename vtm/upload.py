"""Values from the host to a device, without waiting for what the device still has to do."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(x: Tensor, device: torch.device | str) -> Tensor:
    """The same values on a device.

    A copy to a GPU from pageable memory would make the host wait for all that the GPU has still to do, so it goes
    through pinned memory, which torch keeps until the copy is done.
    """
    if torch.device(device).type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)
