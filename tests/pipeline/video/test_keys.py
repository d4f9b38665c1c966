from __future__ import annotations

import numpy as np

from pipeline.video.keys import keys_of

KEYS = keys_of(np.array([0, 100, 250, 300], dtype=np.int64))


def test_a_picture_is_governed_by_the_last_key_at_or_before_it() -> None:
    assert [KEYS.governing(tick) for tick in (-7, 0, 99, 100, 251, 299, 900)] == [-1, 0, 0, 1, 2, 2, 3]


def test_a_key_that_refreshes_bit_by_bit_governs_only_what_is_whole() -> None:
    keys = keys_of(np.array([0, 100, 200], dtype=np.int64), ((100, 140),))
    assert [keys.governing(tick) for tick in (100, 139, 140, 200)] == [0, 0, 1, 2]


def test_starts_go_back_in_doubling_steps_and_end_at_the_start_of_the_file() -> None:
    keys = keys_of(np.arange(0, 1100, 100, dtype=np.int64))
    assert list(keys.starts(1050)) == [10, 9, 8, 6, 2, -1]
    assert list(keys.starts(50)) == [0, -1]
    assert list(keys_of(np.empty(0, dtype=np.int64)).starts(50)) == [-1]
