"""The bench's rows on a made video: what merging does to random models that read it, and to a small video-LLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import main
from tests.pipeline.consumers.tiny_tokenizer import tiny_tokenizer
from tests.pipeline.encode.video_llm_checkpoints import make_video_llm
from tests.pipeline.runs import run, tiny_recipe
from tests.synthetic import make_video


def test_rows_compare_merged_with_unmerged_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = make_video(tmp_path / "short.mp4", frames=51, fps=25, gop=20)
    folder = make_video_llm("qwen2_5_vl", tmp_path / "model")
    tiny_tokenizer().save_pretrained(folder)
    recipe = tiny_recipe(folder, strategy="none", keep=None, size_px="16x24", clip_frames=4, dtype="float32")
    run([video], tmp_path / "out", recipe)
    capsys.readouterr()
    asked = ["bench", "size_bias", str(tmp_path / "out"), "--keep", "0.3", "1", "--threads", "1", "--json"]
    random = ["--seeds", "2", "--layers", "1", "--sharpness", "1"]
    for options, models in ((random, 2), (["--model", str(folder)], 1)):
        assert main([*asked, *options]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert [(row["keep"], row["attention"]) for row in rows] == [
            (keep, way) for keep in (0.3, 1.0) for way in ("plain", "sized", "spread")
        ]
        assert all(row["models"] == models for row in rows)
        assert all(row["kl_nats"] > 0.0001 for row in rows[:3])
        # Where all tokens are left, nothing is changed.
        assert all(row["kl_nats"] < 0.0001 and row["same_first"] == 1 for row in rows[3:])
    run([video], tmp_path / "merged", tiny_recipe(folder, size_px="16x24", clip_frames=4))
    capsys.readouterr()
    assert main(["bench", "size_bias", str(tmp_path / "merged")]) == 2
    assert "holds merged tokens: measure on a run of --strategy none" in capsys.readouterr().err
