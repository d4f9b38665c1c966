from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import jobs.commands.train
from jobs.cli import main
from jobs.training.clip_batches import labelled_clips, open_caches
from jobs.training.labels import load_labels, match_labels
from pipeline.shards.manifest import write_shard
from pipeline.shards.tables import read_table
from pipeline.store import open_store
from tests.jobs.training.conftest import TRAINING, VIDEOS
from tests.pipeline.clips_made import RUN, made_clip
from vtm import token_motion
from vtm.network import VideoTokenMerging, load_network, stored_kind, stored_origin
from vtm.training import ClipBatch, Ranks, VideoPredictions, figures, predict_videos


def run_training(cache: Path, out: Path, *more: object) -> int:
    return main(["train", str(cache), "--out", str(out), *TRAINING, *map(str, more)])


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
        patch.setattr("jobs.training.training_log.TrainingLog.report", stop_after_second)
        assert run_training(cache, tmp_path / "broken", "--labels", labels) == 130
    assert run_training(cache, tmp_path / "broken", "--labels", labels) == 0
    whole, broken = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_values_are_learnt_by_a_regression(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    rows = [f"v{video},{1 if video % 2 else -1},{'val' if video > 15 else 'train'}\n" for video in range(VIDEOS)]
    path.write_text("video_id,label,split\n" + "".join(rows))
    arguments = ("--labels", path, "--strategy", "naive", "--task", "regression")
    assert run_training(cache, tmp_path / "net", *arguments) == 0
    assert load_network(tmp_path / "net").config.task == "regression"


def test_motion_is_that_of_the_cached_tokens(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net"
    assert run_training(cache, out, "--labels", labels, "--strategy", "motion") == 0
    capsys.readouterr()
    assert main(["eval", str(out), str(cache), "--labels", str(labels)]) == 0
    found = capsys.readouterr().out
    network = load_network(out)
    caches, given = open_caches([cache]), load_labels(labels)
    by_video = match_labels(given, caches.videos()).by_video
    batch = next(labelled_clips(caches, by_video, "test", classes=True, motion=True).in_order(8))
    moved = batch.to(torch.device("cpu"))
    assert moved.motion is not None
    torch.testing.assert_close(moved.motion, token_motion(moved.patches, (3, 2, 5)), rtol=0, atol=0)
    header, row = (line.split() for line in found.splitlines())
    assert header == ["split", "videos", "clips", "accuracy", "log_loss"]
    assert row[3] == f"{figures('classification', predict_videos(network, [batch]))['accuracy']:.4f}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("elsewhere,a,train\nother,b,val\n", "none of the labels' validation videos is in a cache"),
        ("elsewhere,a,train\nother,b,test\n", "no cached clip for training: 2 of 2 labels without a cached video"),
        ("v1,a,train\nv1,b,train\n", "contradict each other about videos/v1.mp4: v1 a in train, v1 b in train"),
        ("v1,a,train\nv1.mp4,a,test\n", "contradict each other about videos/v1.mp4"),
        ("v1,a,train\n", "one labelled training video leaves none to validate on"),
        ("v1,1,train\nv2,2,val\n", "all labels are numbers such as 1"),
    ],
)
def test_unusable_labels_are_named(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "other.csv").write_text("video_id,label,split\n" + text)
    assert run_training(cache, tmp_path / "net", "--labels", tmp_path / "other.csv") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "net").exists()


def test_labels_that_are_not_there(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_training(cache, tmp_path / "net", "--labels", tmp_path / "gone.csv") == 2
    assert "gone.csv: no such file or folder of labels" in capsys.readouterr().err


def test_a_split_without_a_video_is_named(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_training(cache, tmp_path / "net", "--labels", labels) == 0
    capsys.readouterr()
    (tmp_path / "other.csv").write_text("video_id,label,split\nv1,odd,train\n")
    assert main(["eval", str(tmp_path / "net"), str(cache), "--labels", str(tmp_path / "other.csv")]) == 2
    assert "no video of the caches is labelled with split test" in capsys.readouterr().err


def test_a_file_name_that_several_videos_share_is_no_label(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = made_clip(0, video_id="f" * 32, seed=99)
    write_shard(cache, "b" * 16, [dataclasses.replace(twin, uri="elsewhere/v3.mp4")], [], RUN, ("parquet",))
    assert run_training(cache, tmp_path / "net", "--labels", labels) == 2
    assert "the label v3 names 2 cached videos" in capsys.readouterr().err


def test_every_label_and_every_video_is_accounted_for(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = labels.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("v5,")]
    labels.write_text("\n".join([*kept, "gone,odd,train"]) + "\n")
    assert run_training(cache, tmp_path / "net", "--labels", labels) == 0
    assert "1 label without a cached video, 1 cached video without a label" in capsys.readouterr().out
    with (tmp_path / "net" / "videos.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == VIDEOS + 1
    assert [row["label_name"] for row in rows if row["matched"] == "no video"] == ["gone"]
    assert [row["uri"] for row in rows if row["matched"] == "no label"] == ["videos/v5.mp4"]
    first = next(row for row in rows if row["uri"] == "videos/v1.mp4")
    assert (first["label"], first["split"], first["clips"]) == ("odd", "train", "2")


def test_labels_without_validation_set_training_videos_aside_and_never_look_at_the_test(
    cache: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels.write_text(labels.read_text().replace(",val", ",train"))
    seen = []
    real = jobs.commands.train.predict_videos

    def watched(network: VideoTokenMerging, batches: Iterable[ClipBatch], ranks: Ranks) -> VideoPredictions:
        predictions = real(network, batches, ranks)
        seen.append(set(predictions.videos))
        return predictions

    monkeypatch.setattr("jobs.commands.train.predict_videos", watched)
    assert run_training(cache, tmp_path / "net", "--labels", labels) == 0
    with (tmp_path / "net" / "videos.csv").open() as file:
        rows = list(csv.DictReader(file))
    in_split = {split: {row["video_id"] for row in rows if row["split"] == split} for split in ("train", "val", "test")}
    assert [len(in_split[split]) for split in ("train", "val", "test")] == [15, 2, 4]
    assert all(videos == in_split["val"] for videos in seen)


def test_classes_go_by_name(cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A renamed class sorts elsewhere: numbers alone would take even for odd, at exit code 0."""
    out = tmp_path / "net"
    assert run_training(cache, out, "--labels", labels) == 0
    assert stored_origin(out).classes == ("even", "odd")
    only_odd = "".join(line + "\n" for line in labels.read_text().splitlines() if ",even" not in line)
    labels.write_text(only_odd)
    capsys.readouterr()
    assert main(["eval", str(out), str(cache), "--labels", str(labels), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["accuracy"] == 1.0
    labels.write_text(only_odd.replace(",odd", ",aardvark"))
    assert main(["eval", str(out), str(cache), "--labels", str(labels)]) == 2
    assert "has no class 'aardvark': it was trained on even, odd" in capsys.readouterr().err


def test_tokens_of_another_kind_are_refused(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net"
    assert run_training(cache, out, "--labels", labels) == 0
    for part, changed, message in (
        ("settings", {"layer": 9}, "trained on tokens of layer -1, these are of layer 9"),
        ("settings", {"layer": -1, "fps": "2"}, "trained on tokens of fps 1, these are of fps 2"),
        ("encoder", {"name": "made", "weights_sha256": "ee"}, "trained on tokens of encoder made"),
    ):
        (cache / "run.json").write_text(json.dumps(RUN | {part: changed}))
        for command in (["eval", "--labels", str(labels)], ["predict", "--out", str(tmp_path / "p.csv")]):
            capsys.readouterr()
            assert main([command[0], str(out), str(cache), *command[1:]]) == 2
            assert message in capsys.readouterr().err


def test_evaluating_videos_that_were_trained_on_is_said(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net"
    assert run_training(cache, out, "--labels", labels) == 0
    labels.write_text(labels.read_text().replace(",train", ",test"))
    assert main(["eval", str(out), str(cache), "--labels", str(labels)]) == 0
    assert "13 of 17 videos served to train or to choose the epoch" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_predictions_of_every_video(cache: Path, labels: Path, tmp_path: Path, suffix: str) -> None:
    out, table = tmp_path / "net", tmp_path / f"predictions{suffix}"
    assert run_training(cache, out, "--labels", labels) == 0
    assert main(["predict", str(out), str(cache), "--labels", str(labels), "--out", str(table)]) == 0
    if suffix == ".csv":
        with table.open() as file:
            rows = list(csv.DictReader(file))
    else:
        rows = read_table(open_store(table.parent), table.name)
    assert list(rows[0]) == ["video_id", "uri", "clips", "label", "prediction", "p_even", "p_odd"]
    assert [row["uri"] for row in rows] == [f"videos/v{video}.mp4" for video in range(VIDEOS)]
    assert all(row["prediction"] == row["label"] == ("odd" if i % 2 else "even") for i, row in enumerate(rows))
    for row in rows:
        assert float(row["p_even"]) + float(row["p_odd"]) == pytest.approx(1)
        assert int(row["clips"]) == 2


def test_predictions_need_no_labels_and_a_known_format(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net"
    assert run_training(cache, out, "--labels", labels) == 0
    assert main(["predict", str(out), str(cache), "--out", str(tmp_path / "p.csv")]) == 0
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == "video_id,uri,clips,prediction,p_even,p_odd"
    assert main(["predict", str(out), str(cache), "--out", str(tmp_path / "p.json")]) == 2
    assert "neither .csv nor .parquet" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda", "cuda:9", "tpu9", "meta"])
def test_a_device_that_is_not_there_is_one_line(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert run_training(cache, tmp_path / "net", "--labels", labels, "--device", device) == 2
    said = capsys.readouterr().err
    assert f"--device {device}" in said
    assert said.count("\n") == 1


def test_help_shows_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "eval", "predict"):
        with pytest.raises(SystemExit):
            main([command, "--help-all"])
        said = " ".join(capsys.readouterr().out.split())
        assert "(default: 16)" in said
        if command == "train":
            assert "(default: 70)" in said
            assert "(default: 0.001)" in said


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--batch-clips", "0", "--batch-clips 0 must be 1 or more"),
        ("--learning-rate", "nan", "learning_rate is above 0 and finite, got nan"),
        ("--auxiliary-weight", "nan", "auxiliary_weight is 0 or more and finite, got nan"),
        ("--dropout", "nan", "dropout in [0, 1), got"),
    ],
)
def test_a_setting_out_of_range_is_one_line(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    assert run_training(cache, tmp_path / "net", "--labels", labels, option, value) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("change", ["label", "split", "cache"])
def test_a_run_does_not_resume_on_other_data(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    assert run_training(cache, tmp_path / "net", "--labels", labels) == 0
    if change == "label":
        labels.write_text(labels.read_text().replace("v2,even", "v2,odd"))
    elif change == "split":
        labels.write_text(labels.read_text().replace("v2,even,train", "v2,even,test"))
    else:
        more = dataclasses.replace(made_clip(2, video_id=f"{2:032x}", seed=2), uri="videos/v2.mp4")
        write_shard(cache, "c" * 16, [more], [], RUN, ("parquet",))
    assert run_training(cache, tmp_path / "net", "--labels", labels) == 2
    said = capsys.readouterr().err
    assert {"label": "labels", "split": "split", "cache": "clips"}[change] in said
    assert "instead of" in said


def test_epochs_can_be_added(cache: Path, labels: Path, tmp_path: Path) -> None:
    assert run_training(cache, tmp_path / "net", "--labels", labels) == 0
    assert run_training(cache, tmp_path / "net", "--labels", labels, "--epochs", "6") == 0
    lines = (tmp_path / "net" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3, 4, 5]


def test_other_settings_do_not_resume(
    cache: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_training(cache, tmp_path / "net", "--labels", labels) == 0
    assert "%|" in capsys.readouterr().err, "a run that trains has a bar"
    assert run_training(cache, tmp_path / "net", "--labels", labels, "--dropout", "0.3") == 2
    said = capsys.readouterr().err
    assert "dropout 0.1 instead of 0.3" in said
    assert "%|" not in said, "a run that is refused has none"


def test_a_weighted_network_learns_by_its_prediction_alone(cache: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "net"
    assert run_training(cache, out, "--labels", labels, "--strategy", "weighted", "--auxiliary", "none") == 0
    assert main(["eval", str(out), str(cache), "--labels", str(labels)]) == 0
    assert load_network(out).config.strategy == "weighted"
