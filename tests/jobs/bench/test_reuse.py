"""The rows of the reuse bench, on a still video and a small encoder, and its ratios by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.bench.reuse import Contender, row_of
from tests.jobs.bench.command import bench
from tests.synthetic import make_video, picture


def test_a_still_video_is_encoded_once_a_clip(
    tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = make_video(tmp_path / "still.mp4", frames=[picture(5)] * 76, fps=25, gop=80)
    before = torch.get_num_threads()
    try:
        options = [str(still), "--encoder", str(tiny_encoder), "--layer", "2", "--reuse-levels", "0", "255"]
        first, last = bench(capsys, "reuse", *options, "--clip-frames", "3", "--repeats", "2", "--device", "cpu")[
            "rows"
        ]
    finally:
        torch.set_num_threads(before)
    assert (first["name"], last["name"], last["video"]) == ("levels 0", "levels 255", "still.mp4")
    # 4 instants: a clip of three and one of one, whose first frames alone are encoded.
    assert last["patches"] == 4 * 15
    assert last["encoded_share"] == 0.5 <= first["encoded_share"]
    # What did not change is what encoding it again would give.
    assert first["p5_cosine"] == pytest.approx(1, abs=1e-5)


def test_ratios_are_of_the_medians_of_rounds() -> None:
    nothing: Any = None
    whole = Contender(nothing, rounds_s=[9.0, 10.0, 30.0])
    cosines = [torch.tensor([1.0, 0.5]), torch.tensor([0.75])]
    reusing = Contender(nothing, rounds_s=[2.0, 8.0, 4.0], patches=40, encoded=10, cosines=cosines)
    row = row_of(2.0, reusing, whole, [1.0, 2.0, 7.0])
    assert (row["decode_s"], row["encode_s"], row["whole_encode_s"]) == (2, 4, 10)
    assert row["encode_speedup"] == 2.5
    assert row["end_to_end_speedup"] == 2
    assert row["encoded_share"] == 0.25
    assert (row["mean_cosine"], row["p5_cosine"]) == (0.75, 0.5)
