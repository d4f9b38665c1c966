"""Where decoding starts, and when reading on does as well: rules without a file or a decoder."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.video.keys import keys_of
from pipeline.video.starts import START, TRIALS, Position, Starts

SECOND = Position(start=100, reached=1, whole=False, ended=False, drops=True)
"""Decoding stands in the second of the groups below, where it started."""


@pytest.fixture
def starts() -> Starts:
    return Starts(keys_of(np.array([0, 100, 200, 300], dtype=np.int64), ((200, 240),)))


def reached(starts: Starts, at: Position, tick: int, *, is_coming: bool = False, is_spoilt: bool = False) -> bool:
    return starts.is_reached_by(at, starts.governing(tick), is_coming=is_coming, is_spoilt=is_spoilt)


def test_a_misleading_key_hands_its_group_to_the_one_before(starts: Starts) -> None:
    assert starts.governing_key(150) == 100
    starts.note_misleading(100)
    assert starts.governing_key(150) == 0
    assert starts.governing_key(320) == 300
    starts.note_misleading(0)
    assert starts.governing_key(150) == START


def test_a_key_heals_from_where_its_pictures_are_whole(starts: Starts) -> None:
    assert [starts.heals_from(tick) for tick in (-5, 100, 150, 200)] == [None, 100, None, 240]


def test_reading_on_reaches_the_group_that_is_being_read_and_no_later_one(starts: Starts) -> None:
    assert reached(starts, SECOND, 150)
    assert not reached(starts, SECOND, 310)
    assert reached(starts, SECOND, 310, is_coming=True)
    assert not reached(starts, SECOND._replace(ended=True), 150)
    assert reached(starts, SECOND._replace(whole=True, drops=False), 250), "where nothing is left out, the next as well"


def test_damage_on_the_way_needs_the_own_key_frame(starts: Starts) -> None:
    assert not reached(starts, SECOND, 150, is_spoilt=True)
    starts.note_whole(100, damaged=True)
    assert not reached(starts, SECOND, 150), "something may have been left out"
    assert reached(starts, SECOND._replace(whole=True), 150, is_spoilt=True), "it is decoded whole already"


def test_a_stream_whose_keys_fail_is_read_on_except_for_damaged_groups(starts: Starts) -> None:
    for _ in range(TRIALS):
        assert starts.leaves_out
        starts.note_missed()
    assert not starts.leaves_out
    assert reached(starts, SECOND, 250, is_spoilt=True)
    assert not reached(starts, SECOND, 310)
    starts.note_whole(200, damaged=True)
    assert not reached(starts, SECOND, 250)
    assert not reached(starts, SECOND._replace(ended=True), 150), "nothing follows the end"
