"""`vtm eval`: how good a trained network's predictions are on the videos of a split."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, get_args

from jobs.table import print_table
from jobs.training.clip_batches import labelled_clips, open_caches
from jobs.training.device import add_device_option, checked_device
from jobs.training.labels import load_labels, match_labels
from jobs.training.labels.record import videos_trained_on
from jobs.training.labels.values import SPLITS
from jobs.training.trained import load_trained
from pipeline.counted import counted
from pipeline.errors import InputError
from vtm.network import Task
from vtm.training import figures, predict_videos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("trained", metavar="DIR", type=Path, help="folder that `vtm train` wrote")
    add("caches", metavar="RUN", type=Path, nargs="+", help="run folders of `vtm extract --strategy none`")
    add("--labels", metavar="PATH", type=Path, required=True, help="label file or folder; classes are matched by name")
    add(
        "--task",
        choices=get_args(Task),
        help="how to read a label table of numbers; labels that are words are always classes",
    )
    add("--split", choices=SPLITS, default="test", help="videos of this split")
    add("--batch-clips", type=int, default=16, help="clips per batch")
    add_device_option(parser)
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Evaluate and print; returns the exit code."""
    device = checked_device(options.device)
    caches = open_caches(options.caches)
    trained = load_trained(options.trained, caches, device)
    labels = trained.renumbered(load_labels(options.labels, options.task), options.labels)
    matching = match_labels(labels, caches.videos())
    motion = trained.network.config.strategy == "motion"
    source = labelled_clips(caches, matching.by_video, options.split, classes=bool(labels.classes), motion=motion)
    if not source.entries:
        raise InputError(f"no video of the caches is labelled with split {options.split}: choose another by --split")
    seen = videos_trained_on(options.trained / "videos.csv") & {entry.video_id for entry in source.entries}
    if seen and options.split == "test":
        print(
            f"{len(seen)} of {counted(source.videos, 'video')} served to train or to choose the epoch: "
            "the figures are optimistic",
            file=sys.stderr,
        )
    found = figures(labels.task, predict_videos(trained.network, source.in_order(options.batch_clips)))
    row: dict[str, Any] = {"split": options.split, "videos": source.videos, "clips": len(source.entries), **found}
    if options.json:
        print(json.dumps({"rows": [row], "labels_without_video": len(matching.missing)}))
        return 0
    print_table(list(row), [[f"{value:.4f}" if isinstance(value, float) else value for value in row.values()]])
    if matching.missing:
        print(f"{counted(len(matching.missing), 'label')} without a cached video")
    return 0
