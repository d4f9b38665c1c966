"""The rows of the reuse bench, on a still video and a small encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jobs.bench import reuse as bench_reuse
from tests.synthetic import make_video, picture


def test_rows_hold_the_promised_figures(tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = make_video(tmp_path / "still.mp4", frames=[picture(5)] * 76, fps=25, gop=80)
    before = torch.get_num_threads()
    try:
        arguments = [str(still), "--encoder", str(tiny_encoder), "--layer", "2", "--levels", "0", "255"]
        assert bench_reuse.main([*arguments, "--clip-frames", "3", "--rounds", "2", "--json"]) == 0
    finally:
        torch.set_num_threads(before)
    first, last = json.loads(capsys.readouterr().out)["rows"]
    assert (first["name"], last["name"], last["video"]) == ("levels 0", "levels 255", "still.mp4")
    # 4 instants: a clip of three and one of one, whose first frames alone are encoded.
    assert last["patches"] == 4 * 15
    assert last["encoded_share"] == 0.5
    assert first["encoded_share"] >= 0.5
    assert last["p5_cosine"] <= last["mean_cosine"] <= 1 + 1e-6
    assert last["encode_speedup"] > 0
    assert last["end_to_end_speedup"] == pytest.approx(
        (last["decode_s"] + last["whole_encode_s"]) / (last["decode_s"] + last["encode_s"])
    )
