from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from jobs.cli import main
from jobs.clip_batches import labelled_clips
from jobs.labels import load_labels
from pipeline import TokenCache
from pipeline.shards.manifest import write_shard
from tests.pipeline.clips_made import RUN, made_clip
from vtm import token_motion
from vtm.network import load_network, load_scorer, stored_kind
from vtm.training import figures, predict_videos

VIDEOS = 21
SMALL = ["--widths", "6", "5", "--windows", "1", "3", "--heads", "1", "--head-width", "5", "--partition-factor", "3"]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two clips each of 21 videos; the sign of the first channel is the class."""
    clips = []
    for video in range(VIDEOS):
        for index in range(2):
            clip = made_clip(index, video_id=f"{video:032x}", seed=video)
            tokens = clip.tokens.copy()
            tokens[:, 0] += 2.0 if video % 2 else -2.0
            clips.append(dataclasses.replace(clip, tokens=tokens, uri=f"videos/v{video}.mp4"))
    folder = tmp_path / "cache"
    write_shard(folder, "a" * 16, clips, [], RUN, ("parquet",))
    (folder / "run.json").write_text(json.dumps(RUN))
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    split = ["train"] * 13 + ["val"] * 4 + ["test"] * 4
    rows = [f"v{video},{'odd' if video % 2 else 'even'},{split[video]}\n" for video in range(VIDEOS)]
    path = tmp_path / "labels.csv"
    path.write_text("video_id,label,split\n" + "".join(rows))
    return path


def run_training(cache: Path, out: Path, *more: object) -> int:
    fixed = ["--epochs", "4", "--warmup-epochs", "1", "--batch", "5", "--learning-rate", "0.02", *SMALL]
    return main(["train", str(cache), "--out", str(out), *fixed, *map(str, more)])


def test_network_learns_from_labels_and_is_evaluated(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net"
    assert run_training(cache, out, "--labels", labels, "--tensorboard") == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert list((out / "events").iterdir())
    assert stored_kind(out) == "network"
    capsys.readouterr()
    assert main(["eval", str(out), str(cache), "--labels", str(labels), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["split"], row["videos"], row["clips"]) == ("test", 4, 8)
    assert row["accuracy"] == 1.0


def test_run_stopped_between_epochs_goes_on_to_the_same_weights(
    cache: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_after_second(log: object, report: object) -> None:
        if report.epoch == 1:
            raise KeyboardInterrupt

    assert run_training(cache, tmp_path / "whole", "--labels", labels) == 0
    with monkeypatch.context() as patch:
        patch.setattr("jobs.training_log.TrainingLog.report", stop_after_second)
        assert run_training(cache, tmp_path / "broken", "--labels", labels) == 130
    assert run_training(cache, tmp_path / "broken", "--labels", labels) == 0
    whole, broken = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_values_are_learnt_by_a_regression(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    rows = [f"v{video},{0.5 if video % 2 else -0.5},{'val' if video > 15 else 'train'}\n" for video in range(VIDEOS)]
    path.write_text("video_id,label,split\n" + "".join(rows))
    assert run_training(cache, tmp_path / "net", "--labels", path, "--strategy", "naive") == 0
    assert load_network(tmp_path / "net").config.task == "regression"


def test_motion_is_that_of_the_cached_tokens(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net"
    assert run_training(cache, out, "--labels", labels, "--strategy", "motion") == 0
    assert main(["eval", str(out), str(cache), "--labels", str(labels)]) == 0
    found = capsys.readouterr().out
    network = load_network(out)
    batch = next(labelled_clips([TokenCache(cache)], load_labels(labels), "test", motion=True).in_order(8))
    torch.testing.assert_close(batch.motion, token_motion(batch.patches, (3, 2, 5)), rtol=0, atol=0)
    assert f"accuracy {figures('classification', predict_videos(network, [batch]))['accuracy']:.4f}" in found


def test_scorer_learns_without_labels(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scorer"
    assert run_training(cache, out) == 0
    assert stored_kind(out) == "scorer"
    scores = load_scorer(out)(torch.randn(1, 30, 7), (3, 2, 5))
    assert np.isfinite(scores.detach().numpy()).all()
    capsys.readouterr()
    assert main(["eval", str(out), str(cache), "--keep", "0.2", "0.4", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["clips"] == 2 * VIDEOS
    assert [row["keep"] for row in facts["rows"]] == [0.2, 0.4]
    assert facts["rows"][0]["learnable"] < facts["rows"][1]["learnable"] <= 1


def test_without_labels_only_a_scorer_learns(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_training(cache, tmp_path / "net", "--strategy", "motion") == 2
    assert "--strategy motion has nothing to learn without --labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("video_id,label,split\nelsewhere,a,train\nother,b,val\n", "no cached clip for training")],
)
def test_labels_of_other_videos_are_named(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "other.csv").write_text(text)
    assert run_training(cache, tmp_path / "net", "--labels", tmp_path / "other.csv") == 2
    assert message in capsys.readouterr().err


def test_other_settings_do_not_resume(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_training(cache, tmp_path / "net", "--labels", labels) == 0
    assert run_training(cache, tmp_path / "net", "--labels", labels, "--dropout", "0.3") == 2
    assert "dropout 0.1 instead of 0.3" in capsys.readouterr().err
