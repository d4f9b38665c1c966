"""The memory of this process, now and at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Literal

import torch

STATUS = Path("/proc/self/status")


def resident_bytes(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Resident memory: `VmRSS` now, `VmHWM` at most; without Linux's /proc, at most for both."""
    if STATUS.is_file():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) * 1024
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has held: allocated on the GPU, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident_bytes("VmHWM")


def reset_peak(device: torch.device) -> None:
    """Let `peak_bytes` begin anew from what is held now; on the host where the system can."""
    reset = Path("/proc/self/clear_refs")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif reset.is_file():
        reset.write_text("5")
