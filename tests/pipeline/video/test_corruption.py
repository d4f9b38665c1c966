"""Random corruptions of whole files in every codec: each ends in clips or in a DecodeError, and never in a hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.video.corruptions import corrupt_all

CORRUPTIONS = 150
"""`python -m tests.pipeline.video.measure corruptions` does 2,000."""


@pytest.mark.slow
def test_corruptions_end_in_clips_or_decode_errors(tmp_path: Path) -> None:
    outcomes = corrupt_all(tmp_path, CORRUPTIONS)
    assert outcomes["clips"] > CORRUPTIONS
    assert outcomes["failed scan"] > 0
