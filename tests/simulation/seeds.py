"""Many seeds, on several cores."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulation.drive import simulate

CHUNK = 50


def failing(first: int, count: int = CHUNK) -> list[tuple[int, str]]:
    """Seeds that fail, and why."""
    found = []
    for seed in range(first, first + count):
        try:
            simulate(seed)
        except Exception as error:
            found.append((seed, f"{type(error).__name__}: {error}"))
    return found


def failing_of(first: int, count: int, processes: int | None = None) -> list[tuple[int, str]]:
    """The same, on several cores."""
    # Fresh processes: forked ones would be traced where coverage is measured, and take three times as long.
    with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return [found for chunk in pool.map(failing, range(first, first + count, CHUNK)) for found in chunk]
