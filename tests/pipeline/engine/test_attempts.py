from __future__ import annotations

import pytest

from pipeline.engine.attempts import MAX_ATTEMPTS, WORTH_RETRYING, WRITE_ATTEMPTS, FailedAttempts, pause_s
from pipeline.engine.ledger import joined
from pipeline.errors import FAILURE_CLASSES, FailureClass
from pipeline.failed_range import FailedRange


@pytest.mark.parametrize("failure", FAILURE_CLASSES)
def test_what_is_worth_it_is_tried_three_times(failure: FailureClass) -> None:
    strikes = FailedAttempts()
    verdicts = [strikes.add("clip", failure) for _ in range(MAX_ATTEMPTS)]
    if failure in WORTH_RETRYING:
        assert verdicts == [None, None, MAX_ATTEMPTS]
    else:
        assert verdicts == [1, 1, 1]
    assert not len(strikes)


def test_a_forgiven_attempt_does_not_count() -> None:
    strikes = FailedAttempts()
    strikes.add("clip", "crash")
    strikes.add("clip", "crash")
    strikes.forgive("clip")
    assert strikes.count("clip") == 1
    assert strikes.add("clip", "crash") is None
    strikes.forgive("another")
    strikes.clear("clip")
    assert not len(strikes)


def test_a_shard_is_tried_for_a_minute() -> None:
    assert 60 <= sum(pause_s(attempt) for attempt in range(1, WRITE_ATTEMPTS)) <= 120


def test_neighbours_that_failed_alike_are_one_range() -> None:
    def failed(start_ns: int, failure: FailureClass) -> FailedRange:
        return FailedRange(
            video_id="v", uri="u", start_ns=start_ns, end_ns=start_ns + 10, failure=failure, message="m", attempts=1
        )

    rows = joined([failed(30, "corrupt"), failed(0, "corrupt"), failed(10, "corrupt"), failed(40, "crash")])
    assert [(row.start_ns, row.end_ns, row.failure) for row in rows] == [
        (0, 20, "corrupt"),
        (30, 40, "corrupt"),
        (40, 50, "crash"),
    ]
