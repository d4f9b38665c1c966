"""`python -m tests.simulation [--seeds 10000] [--first 0] [--seed N]`: many seeds on all cores, or one alone."""

from __future__ import annotations

import argparse
import os
import sys
import time
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    if options.seed is not None:
        simulate(options.seed)
        return 0
    start_s = time.perf_counter()
    found = failing_of(options.first, options.seeds)
    for seed, why in found:
        print(f"seed {seed}: {why[:300]}")
    print(f"{options.seeds} seeds, {len(found)} fail, {time.perf_counter() - start_s:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
