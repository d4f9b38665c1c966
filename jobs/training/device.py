"""The option `--device` of commands that train, evaluate or predict."""

from __future__ import annotations

import argparse

import torch

from pipeline.counted import counted
from pipeline.errors import SettingsError


def add_device_option(parser: argparse.ArgumentParser, note: str = "") -> None:
    """Declare `--device`, with a note at the end of its help."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help=f"cpu, cuda or cuda:1{note}")


def checked_device(name: str) -> str:
    """A device that this machine has.

    Raises:
        SettingsError: it has none of that name.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise SettingsError(
            f"--device {name} cannot be used here ({reason}): this machine has {counted(count, 'CUDA device')}; "
            "say --device cpu" + ("" if count == 0 else " or cuda")
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"--device {name} is none that training knows: cpu or cuda")
    return name
