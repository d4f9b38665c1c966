"""`vtm bench pipeline`: a row for each way to extract, and rates that `vtm plan` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.bench import pipeline
from jobs.cli import main
from jobs.rates import load_rates
from tests.synthetic import make_video

SMALL = ["--fps", "2", "--clip-frames", "3", "--batch-frames", "2", "--keep", "0.5"]


def test_rows_and_rates(
    tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Ray, which the rehearsal of `vtm bench gpu` starts."""
    monkeypatch.setattr(pipeline, "is_ray_installed", lambda: False)
    video = make_video(tmp_path / "film.mkv", frames=100, fps=25)
    command = ["--encoder", str(tiny_encoder), *SMALL]
    assert main(["bench", "pipeline", str(video), *command, "--gpus", "0", "--json"]) == 0
    text = capsys.readouterr().out
    facts = json.loads(text)
    assert [row["name"] for row in facts["rows"]] == ["plain script", "vtm, inline"]
    plain = facts["rows"][0]
    assert plain["frames"] == 8
    assert plain["video_s"] == pytest.approx(3.96)
    (tmp_path / "rates.json").write_text(text)
    rates = load_rates(tmp_path / "rates.json")
    assert rates.device == "cpu"
    assert main(["plan", str(video), *command, "--rates", str(tmp_path / "rates.json"), "--json"]) == 0
    totals = json.loads(capsys.readouterr().out)["totals"]
    assert totals["encoder_h"] == pytest.approx(plain["encode_s"] / 3600)
