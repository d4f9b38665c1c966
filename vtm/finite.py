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
    finite = torch.isfinite(values.detach())
    if not bool(finite.all()):
        raise MergeError(
            f"{int((~finite).sum())} of the {name}' values are not finite: expected numbers, got NaN or infinity; "
            "look for them where they are made"
        )
