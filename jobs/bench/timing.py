"""Seconds of a piece of work, on a GPU too, where a call returns before the work is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")
CPU = torch.device("cpu")


def wait_for(device: torch.device) -> None:
    """Let a GPU finish what it was given, so that the clock sees it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(
    work: Callable[[], Result], device: torch.device = CPU, clock: Callable[[], float] = time.perf_counter
) -> tuple[Result, float]:
    """The result of the work, and the seconds until the device has finished it."""
    wait_for(device)
    began_s = clock()
    result = work()
    wait_for(device)
    return result, clock() - began_s


def repeated_s(work: Callable[[], object], repeats: int, device: torch.device = CPU) -> list[float]:
    """The seconds of each of several repetitions."""
    return [timed(work, device)[1] for _ in range(repeats)]
