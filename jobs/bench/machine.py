"""What the rows of a benchmark were measured on, in words."""

from __future__ import annotations

import os
import platform

import torch

from pipeline.counted import counted
from pipeline.encode.devices import this_device


def machine_name(device: str = "cpu", threads: int | None = None, dtype: str | torch.dtype | None = None) -> str:
    """Name the machine, and what else bears on the figures.

    Args:
        device: cpu, cuda or cuda:1.
        threads: of torch's arithmetic on the CPU, where it matters.
        dtype: of the arithmetic, where it matters.

    Raises:
        SettingsError: there is no such device.
    """
    name = platform.processor() or platform.machine() if device == "cpu" else this_device(device).record
    parts = [f"{device} {name}", counted(os.cpu_count() or 1, "core")]
    parts += [counted(threads, "thread")] if threads is not None else []
    parts.append(f"torch {torch.__version__}")
    parts += [str(dtype).removeprefix("torch.")] if dtype is not None else []
    return ", ".join(parts)
