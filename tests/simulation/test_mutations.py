"""Each old bug, put back, is found within 1,000 seeds; `python -m tests.simulation.test_mutations` prints by which."""

from __future__ import annotations

import pytest

from tests.simulation.drive import simulate
from tests.simulation.mutations import OLD_BUGS

FOUND_BY = {
    "decoders claim every CPU": 0,
    "waiting counts as silence": 11,
    "IndexError after a unit's last clip": 3,
    "one unencodable clip ends the run": 0,
    "encoding has no limit": 20,
    "writing has no limit": 40,
    "a replacement encoder is not awaited": 11,
    "a lost writer ends the run": 9,
    "more workers than cores claim a core each": 1,
    "one writer serves the cluster": 0,
    "a lost node counts against its clips": 490,
    "the first of two clips in an encoder is blamed": 41,
    "three lost encoders end the run": 20,
    "retries go to the back": 30,
    "objects are counted, not bytes": 2,
    "clips go to the lowest number": 0,
    "all is scanned first": 2,
    "the limit covers a whole scan": 9,
    "gaps between pending units": 591,
    "an input named twice": 11,
    "frames lost with their encoder": 26,
    "the driver's sleep is silence": 9,
    "lost tokens count as there": 9,
}
"""The first seed that found each."""


def first_to_find(name: str, seeds: range) -> tuple[int, str] | None:
    with pytest.MonkeyPatch.context() as patch:
        OLD_BUGS[name](patch)
        for seed in seeds:
            try:
                simulate(seed)
            except Exception as error:
                return seed, f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("name", OLD_BUGS)
def test_an_old_bug_is_found(name: str) -> None:
    seed = FOUND_BY[name]
    assert first_to_find(name, range(seed, seed + 1)) is not None
    simulate(seed)


if __name__ == "__main__":
    for bug in OLD_BUGS:
        found = first_to_find(bug, range(1000))
        print(f"{bug:40} seed {found[0]:4}  {found[1][:110]}" if found else f"{bug:40} NOT FOUND", flush=True)
