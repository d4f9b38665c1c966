"""The scheduler against a cluster in virtual time: thousands of seeds, and those that once failed."""

from __future__ import annotations

import pytest

from tests.simulation.drive import simulate
from tests.simulation.seeds import failing_of

SEEDS = 10_000
ONCE_FAILED = (
    *(2, 9, 25, 68, 81, 106, 136, 212, 261, 271, 291, 292, 414, 432, 610, 611, 810, 857, 1061, 1248, 1301, 1380, 1885),
    *(2636, 3462, 4033, 4046, 5430, 5475, 6913, 7354, 8447, 9016),
)
"""Each found a fault of the scheduler, or of the simulator, that was mended."""


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_what_once_failed(seed: int) -> None:
    simulate(seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds() -> None:
    """One that fails is printed, and replays with `python -m tests.simulation --seed N`."""
    found = failing_of(0, SEEDS, processes=2)
    assert not found, "\n".join(f"python -m tests.simulation --seed {seed}  # {why[:200]}" for seed, why in found[:20])


def test_a_seed_is_the_same_each_time() -> None:
    assert simulate(432).shards == simulate(432).shards
