"""What a run says of itself at its end."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.engine.job import StageTime
from pipeline.failed_range import FailedRange
from pipeline.summary import RunSummary, Tally

FAILED = FailedRange(
    video_id="v", uri="v.mp4", start_ns=0, end_ns=0, failure="corrupt", message="bad", attempts=1, stage="scan"
)


def summary(tally: Tally, **changes: Any) -> RunSummary:
    facts: dict[str, Any] = {"out": "out", "videos": 1, "clips": 0, "bytes_written": 0, "failures": ()}
    return RunSummary(**facts | changes, tally=tally)


@pytest.mark.parametrize("stopped", [None, "SIGTERM"])
def test_a_run_that_ends_before_its_workers_are_ready_has_no_rate(stopped: str | None) -> None:
    """As where the only video is damaged, and that is known while the encoder is still being loaded."""
    ended = summary(Tally(failures=1), failures=(FAILED,), stopped=stopped)
    lines = ended.lines()
    assert lines[0] == "out: 1 video, 0 clips, 0.0 MB, 1 failed range"
    assert lines[-1] == "this run: no clip, as it ended before its workers were ready"
    assert "  failed: v.mp4 [corrupt] bad" in lines
    assert ended.exit_code == (3 if stopped is None else 130)


def test_a_run_says_how_fast_it_was_and_what_bounded_it() -> None:
    """Ten hours of video in 100 s on four cores: 360 times real time; 250 + 50 of 400 CPU seconds were used."""
    tally = Tally(
        num_cores=4,
        startup_s=2.5,
        wall_s=100.0,
        decode=StageTime(50.0, 50.0),
        encode=StageTime(250.0, 90.0),
        clips=600,
        video_ns=36_000 * 10**9,
    )
    lines = summary(tally, clips=600).lines()
    assert "this run: 600 clips, 10.00 h of video in 100.0 s (360 times real time), start-up 2.5 s" in lines
    assert lines[-1].startswith("bound by encode; efficiency 0.75 ")


def test_a_run_with_nothing_to_do_says_so() -> None:
    assert summary(Tally()).lines()[-1] == "nothing was left to do"
