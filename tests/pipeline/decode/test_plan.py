from __future__ import annotations

import numpy as np

from pipeline.decode.plan import Run, governing_key, plan_runs, starting_points

KEYS = np.array([0, 100, 250, 300], dtype=np.int64)


def test_targets_are_grouped_by_the_key_frame_that_governs_them() -> None:
    assert plan_runs([0, 99, 100, 251, 299, 900], KEYS) == (
        Run(0, (0, 99)),
        Run(100, (100,)),
        Run(250, (251, 299)),
        Run(300, (900,)),
    )
    assert plan_runs([], KEYS) == ()


def test_what_comes_before_all_key_frames_is_governed_by_the_first() -> None:
    assert governing_key(-7, KEYS) == 0
    assert plan_runs([-7, 3], KEYS) == (Run(0, (-7, 3)),)


def test_starts_go_back_in_doubling_steps_and_end_at_the_start_of_the_file() -> None:
    keys = np.arange(0, 1100, 100, dtype=np.int64)
    assert list(starting_points(1050, keys)) == [1000, 900, 800, 600, 200, None]
    assert list(starting_points(50, keys)) == [None]
    assert list(starting_points(50, keys[:0])) == [None]
