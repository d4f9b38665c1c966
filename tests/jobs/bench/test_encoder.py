"""The bench's arithmetic, and its rows on a small encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.bench import encoder as bench_encoder
from jobs.bench.encoder import Work
from jobs.bench.encoder_contenders import Contender
from tests.jobs.bench.command import bench
from vtm.encoders.checkpoint.families import vit_config


def test_flop_of_a_frame_by_hand() -> None:
    config = vit_config(
        {"model_type": "dinov2", "hidden_size": 12, "num_attention_heads": 3, "patch_size": 7, "image_size": 35}
    )
    tokens, patches = 16, 15
    block = tokens * (12 * 36 + 12 * 12 + 2 * 12 * 48) + 2 * tokens * tokens * 12
    assert bench_encoder.frame_flop(config, 5, (3, 5)) == 2 * (patches * 147 * 12 + 5 * block)


def test_rows_are_the_forms_of_the_encoder_with_their_fidelity(
    tiny_encoder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench_encoder.CEILING_SIDE, "cpu", 32)
    arguments = ["--encoder", str(tiny_encoder), "--batch-frames", "2", "--repeats", "1", "--encoder-keep", "0.5"]
    arguments += ["--other-dtypes", "float32", "int8", "--compute-dtype", "bfloat16", "--device", "cpu"]
    rows = {row["name"]: row for row in bench(capsys, "encoder", *arguments)["rows"]}
    assert list(rows)[:4] == ["vtm", "vtm, keep 0.5", "vtm, float32", "vtm, int8 linear maps"]
    figures = {"frames_per_s", "ceiling_share", "best_ceiling_share", "times_transformers", "peak_bytes"}
    assert figures <= set(rows["vtm"])
    assert rows["vtm, keep 0.5"]["encoder_keep"] == 0.5
    assert rows["vtm, float32"]["fidelity"] == pytest.approx(1)
    assert rows["vtm, keep 0.5"]["fidelity"] < rows["vtm"]["fidelity"] < 1
    assert 0.9 < rows["vtm, int8 linear maps"]["fidelity"] < 1


def test_a_share_is_of_the_faster_product_beside_it() -> None:
    """Half the arithmetic in twice the seconds is a quarter of the rate; a disturbed round counts less."""
    rounds = [bench_encoder.Round(2.0, 1.0), bench_encoder.Round(2.0, 1.0), bench_encoder.Round(9.0, 1.0)]
    peer = [bench_encoder.Round(3.0, 1.0), bench_encoder.Round(6.0, 2.0), bench_encoder.Round(3.0, 1.0)]
    taken = {"vtm": rounds, "transformers, sdpa": peer}
    row = bench_encoder.row_of(Contender("vtm", print), taken, 7, Work(frames=10, flop=50, product_flop=100))
    assert (row["ceiling_share"], row["best_ceiling_share"]) == (0.25, 0.25)
    assert row["frames_per_s"] == 5
    assert row["times_transformers"] == 1.5
    assert row["times_uncompressed"] == 1
