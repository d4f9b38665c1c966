from __future__ import annotations

import pytest

from pipeline.counted import counted, plural


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "video", "0 videos"),
        (1, "video", "1 video"),
        (2, "failed range", "2 failed ranges"),
        (1, "failed range", "1 failed range"),
        (1200, "source patch", "1200 source patches"),
        (2, "class", "2 classes"),
        (3, "epoch", "3 epochs"),
    ],
)
def test_a_noun_follows_its_number(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text
    assert text.endswith(f" {plural(count, noun)}")
