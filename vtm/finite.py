"""Values that decide a merge are numbers: one that is not is refused before it decides anything."""

from __future__ import annotations

import torch
from torch import Tensor

from vtm.errors import MergeError


def check_finite(name: str, values: Tensor) -> None:
    """Refuse values of which some are NaN or infinite, on a CPU.

    On a GPU nothing is looked at: the host would wait for everything before it, once for each argument. There they go
    through, and fidelities and merged tokens are NaN as well. Under `torch.compile` they do too, which makes one graph
    only of what depends on no value.

    Args:
        name: of the argument, for the message.
        values: of any shape, dtype and device.

    Raises:
        MergeError: some are not finite.
    """
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if not values.numel() or not values.is_floating_point():
        return
    # One pass, where isfinite makes a mask of all values: the ends are NaN where any value is.
    if not all(torch.isfinite(end) for end in values.detach().aminmax()):
        count = int((~torch.isfinite(values.detach())).sum())
        raise MergeError(
            f"{name}: {count} of {values.numel()} values are NaN or infinite, expected finite numbers: "
            "look for them where they are made"
        )
