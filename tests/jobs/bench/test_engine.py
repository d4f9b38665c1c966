"""`vtm bench engine`: a simulated cluster kept busy in bounded memory, and runs whose workers do nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.jobs.bench.command import bench

SMALL = ["--nodes", "3", "--gpus", "2", "--decoders", "14", "--store-bytes", str(1 << 30)]


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = bench(capsys, "engine", *arguments)["rows"]
    return found


@pytest.mark.parametrize(("encode_s", "bound"), [("0.1", "decode"), ("1.3", "encode")])
def test_the_bounding_stage_is_busy_and_memory_does_not_grow(
    capsys: pytest.CaptureFixture[str], encode_s: str, bound: str
) -> None:
    held = []
    for videos in (700, 2100):
        (row,) = rows(capsys, "--only", "simulated", "--videos", str(videos), "--encode-s", encode_s, *SMALL)
        assert (row["clips"], row["healthy_kills"], row["bound_by"]) == (videos * 5, 0, bound)
        assert (row["nodes"], row["encoders"], row["decoders"]) == (3, 6, 42)
        assert row["utilization"] >= 0.95
        held.append(row["most_clips_held"])
    # Three times the videos, and hardly more clips at once.
    assert held[1] <= 1.3 * held[0] < 1000


def test_a_run_whose_workers_do_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows(capsys, "--only", "inline", "--clips", "23", "--size-px", "14")
    assert (row["name"], row["clips"], row["clip_bytes"]) == ("inline", 23, 60 * 14 * 14 * 3)
