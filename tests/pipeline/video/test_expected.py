"""Which pictures that come out of a decoder are damaged, by what it was sent before."""

from __future__ import annotations

from av import VideoFrame

from pipeline.video.expected import Expected


def frame(tick: int | None) -> VideoFrame:
    made = VideoFrame(16, 16, "yuv420p")
    made.pts = tick
    return made


def damage_of(expected: Expected, *ticks: int | None) -> dict[int, bool]:
    return {out.tick: out.damaged for out in expected.come_out([frame(tick) for tick in ticks])}


def sent(*ticks: int, droppable: bool = False) -> Expected:
    expected = Expected()
    for tick in ticks:
        expected.add(tick, damaged=False, droppable=droppable)
    return expected


def test_damage_spreads_over_what_is_sent_after_it() -> None:
    expected = sent(0)
    expected.spreading.begin(1)
    expected.add(1, damaged=True, droppable=False)
    expected.add(2, damaged=False, droppable=False)
    assert damage_of(expected, 0, None, 1, 2) == {0: False, 1: True, 2: True}
    assert 2 not in expected


def test_one_bad_packet_of_a_picture_damages_it() -> None:
    expected = Expected()
    expected.add(5, damaged=True, droppable=True)
    expected.add(5, damaged=False, droppable=True)
    assert damage_of(expected, 5) == {5: True}


def test_a_picture_that_never_comes_out_damages_what_was_decoded_since() -> None:
    assert damage_of(sent(0, 1, 2, 3), 0, 2, 3) == {0: False, 2: False, 3: True}
    assert damage_of(sent(0, 1, 2, 3, droppable=True), 0, 2, 3) == {0: False, 2: False, 3: False}


def test_what_is_shown_before_the_first_whole_picture_counts_for_nothing() -> None:
    expected = Expected(whole_from=10)
    for tick in (8, 9, 10, 11):
        expected.add(tick, damaged=False, droppable=False)
    assert [expected.is_leading(tick) for tick in (9, 10)] == [True, False]
    assert damage_of(expected, 9, 10, 11) == {9: False, 10: False, 11: False}
