"""The bench's arithmetic, and its rows on a small encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import bench_encoder
from vtm.encoders.families import vit_config


def test_flop_of_a_frame_by_hand() -> None:
    config = vit_config(
        {"model_type": "dinov2", "hidden_size": 12, "num_attention_heads": 3, "patch_size": 7, "image_size": 35}
    )
    tokens, patches = 16, 15
    block = tokens * (12 * 36 + 12 * 12 + 2 * 12 * 48) + 2 * tokens * tokens * 12
    assert bench_encoder.frame_flop(config, 5, (3, 5)) == 2 * (patches * 147 * 12 + 5 * block)


def test_rows_hold_the_promised_figures(tiny_encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--encoder", str(tiny_encoder), "--batch", "2", "--rounds", "1", "--encoder-keep", "--json"]
    assert bench_encoder.main([*arguments, "--dtype", "float32"]) == 0
    report = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in report["rows"]]
    assert names[0] == "vtm"
    assert {"frames_per_s", "ceiling_share", "peak_bytes", "encoder_keep", "fidelity"} <= set(report["rows"][0])
    assert all(row["frames_per_s"] > 0 for row in report["rows"])
