"""The bench's rows on a made video and a small encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.bench import tree as bench_tree
from tests.synthetic import make_video


def test_rows_say_what_a_tree_promises(tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "short.mp4", frames=151, fps=25, gop=20)
    fixed = ["--encoder", str(tiny_encoder), "--layer", "2", "--fps", "2", "--clip-frames", "6", "--whole"]
    fixed += ["--hours", "0.02", "--tokens-per-video", "30"]
    assert bench_tree.main([str(video), *fixed, "--device", "cpu", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
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
    for row in rows[5:7]:
        assert row["stream"] == pytest.approx(row["one_tree"], abs=0.03)
        assert row["saved_with_lloyd"] <= 1
    assert (rows[-1]["clips"], rows[-1]["tokens"]) == (24, 30)
    assert 0 < rows[-1]["resident_first_tenth_bytes"] <= 1.2 * rows[-1]["resident_last_tenth_bytes"]
    for row in rows[7:-1]:
        assert row["worst_clip"] > float(row["name"].split()[1]) - 0.002
        assert row["share_least"] <= row["share"] <= row["share_most"]
