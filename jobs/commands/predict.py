"""`vtm predict`: a trained network's prediction for each video of a cache, as csv or Parquet."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from jobs.training.clip_batches import ClipSource, open_caches
from jobs.training.device import add_device_option, checked_device
from jobs.training.labels import load_labels, match_labels
from jobs.training.trained import Trained, load_trained
from pipeline.counted import counted
from pipeline.errors import SettingsError
from pipeline.shards.tables import write_rows
from pipeline.store import open_store
from vtm.network import Task
from vtm.training import VideoPredictions, predict_videos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("trained", metavar="DIR", type=Path, help="folder that `vtm train` wrote")
    add("caches", metavar="RUN", type=Path, nargs="+", help="run folders of `vtm extract --strategy none`")
    add("--out", metavar="FILE", type=Path, required=True, help=".csv or .parquet file to write, one row per video")
    add("--labels", metavar="PATH", type=Path, help="label file or folder; adds the column label")
    add(
        "--task",
        choices=get_args(Task),
        help="how to read a label table of numbers; labels that are words are always classes",
    )
    add("--batch-clips", type=int, default=16, help="clips per batch")
    add_device_option(parser)


def run(options: argparse.Namespace) -> int:
    """Predict every video and write the table; returns the exit code."""
    if options.out.suffix not in (".csv", ".parquet"):
        raise SettingsError(f"--out {options.out} is neither .csv nor .parquet")
    device = checked_device(options.device)
    caches = open_caches(options.caches)
    trained = load_trained(options.trained, caches, device)
    videos = caches.videos()
    known: dict[str, object] | None = None
    if options.labels is not None:
        labels = trained.renumbered(load_labels(options.labels, options.task), options.labels)
        known = {
            video: labels.classes[int(label.target)] if labels.classes else label.target
            for video, label in match_labels(labels, videos).by_video.items()
        }
    motion = trained.network.config.strategy == "motion"
    source = ClipSource(caches, {video.video_id: None for video in videos}, motion=motion)
    predictions = predict_videos(trained.network, source.in_order(options.batch_clips))
    rows = prediction_rows(trained, predictions, {video.video_id: video.uri for video in videos}, known)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.out.suffix == ".parquet":
        write_rows(open_store(options.out.parent), options.out.name, rows)
    else:
        _write_csv(options.out, rows)
    print(f"{options.out}: {counted(len(rows), 'video')}, {counted(len(source.entries), 'clip')}")
    return 0


def prediction_rows(
    trained: Trained, predictions: VideoPredictions, uris: dict[str, str], known: dict[str, object] | None
) -> list[dict[str, Any]]:
    """One row a video, in order of id: its prediction, and of a classification the probability of each class."""
    classes = trained.origin.classes
    rows = []
    for index, video in enumerate(predictions.videos):
        values = predictions.prediction[index].tolist()
        row: dict[str, Any] = {"video_id": video, "uri": uris[video], "clips": int(predictions.clips[index])}
        if known is not None:
            row["label"] = known.get(video)
        row["prediction"] = classes[values.index(max(values))] if classes else values[0]
        row |= {f"p_{name}": value for name, value in zip(classes, values, strict=False)}
        rows.append(row)
    return sorted(rows, key=lambda row: str(row["video_id"]))


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
