"""The bench's rows on a made video and a small encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.bench.whole_videos import unit_fidelity
from tests.jobs.bench.command import bench
from tests.synthetic import make_video


def test_rows_say_what_a_tree_promises(tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "short.mp4", frames=151, fps=25, gop=20)
    fixed = ["--encoder", str(tiny_encoder), "--layer", "2", "--fps", "2", "--clip-frames", "6", "--whole"]
    fixed += ["--hours", "0.02", "--tokens-per-video", "30"]
    rows = bench(capsys, "tree", str(video), *fixed, "--device", "cpu")["rows"]
    assert [row["name"] for row in rows] == [
        "tree",
        *["equal fidelity"] * 4,
        *["video"] * 2,
        "fidelity 0.9",
        "fidelity 0.95",
        "hours",
    ]
    assert rows[0]["clips"] == 2
    assert rows[0]["told_apart"] < 0.01
    assert [row["clips"] for row in rows[5:7]] == [3, 3]  # 13 sampling times: the third clip has one
    for row in rows[5:7]:
        assert row["stream"] == pytest.approx(row["one_tree"], abs=0.03)
    assert (rows[-1]["clips"], rows[-1]["tokens"]) == (24, 30)
    for row in rows[7:-1]:
        assert row["worst_clip"] > float(row["name"].split()[1]) - 0.002


def test_unit_fidelity_by_hand() -> None:
    """Of three unit tokens, two at right angles share a group, whose mean has a cosine of 1/√2 to each."""
    x_1NC = torch.tensor([[[3.0, 0.0], [0.0, 5.0], [7.0, 0.0]]])
    assert unit_fidelity(x_1NC, torch.tensor([[0, 0, 1]]), 2) == pytest.approx((2 / 2**0.5 + 1) / 3)
