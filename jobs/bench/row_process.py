"""A benchmark's row in a process of its own: started, waited for, and its peak memory read."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

Request = TypeVar("Request")


def in_own_process(measure: Callable[[Request], dict[str, Any]], request: Request) -> dict[str, Any]:
    """Measure a row in a fresh process: peak memory is a process's, and one row's freed pages are not another's.

    Args:
        measure: a function of a module, which the process imports.
        request: what it measures; pickled.

    Returns:
        The row.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, request).result()


def peak_bytes(device: torch.device) -> int:
    """The most memory this process held at once: on the GPU, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


def wait_for(device: torch.device) -> None:
    """Let a GPU finish what it was given, so that the clock sees it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine_name(device: str, threads: int) -> str:
    """What the rows were measured on, in words."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor()
    return f"{device} {name or platform.machine()}, {threads} threads, torch {torch.__version__}"
