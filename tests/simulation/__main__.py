"""`python -m tests.simulation [--seeds 10000] [--first 0] [--seed N]`: many seeds on all cores, or one alone."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.drive import simulate
from tests.simulation.seeds import failing_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    if options.seed is not None:
        simulate(options.seed)
        print(f"seed {options.seed}: nothing is violated")
        return 0
    start_s = time.perf_counter()
    found = failing_of(options.first, options.seeds)
    for seed, why in found:
        print(f"seed {seed}: {why[:300]}")
    print(f"{options.seeds} seeds, {len(found)} fail, {time.perf_counter() - start_s:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
