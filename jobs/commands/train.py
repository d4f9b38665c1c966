"""`vtm train`: the paper's network, learnt from token caches and labels."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from jobs.parser import Parser
from jobs.training.clip_batches import Caches, ClipSource, labelled_clips, open_caches
from jobs.training.device import add_device_option
from jobs.training.labels import LabelSet, Matching, load_labels, match_labels, with_validation
from jobs.training.labels.record import write_matching
from jobs.training.options import (
    add_network_options,
    add_training_options,
    asked_for,
    network_config,
    training_settings,
)
from jobs.training.processes import in_processes
from jobs.training.training_log import TrainingLog
from pipeline.counted import counted
from pipeline.errors import InputError
from vtm.network import Task, VideoTokenMerging, save_model
from vtm.training import Progress, Ranks, TrainingTask, figures, labelled_objective, predict_videos, train

COMMON = ("caches", "out", "labels", "task", "strategy", "epochs", "batch_clips", "device")
"""Options of the first help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; the defaults are the paper's, but for what trains the scores."""
    add = parser.add_argument
    add("caches", metavar="RUN", type=Path, nargs="+", help="run folders of `vtm extract --strategy none`")
    add(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder for the network; training in it is resumed",
    )
    add("--labels", metavar="PATH", type=Path, required=True, help="label file or folder")
    add(
        "--task",
        choices=get_args(Task),
        help="how to read a label table of numbers; labels that are words are always classes",
    )
    add_network_options(parser)
    add_training_options(parser)
    add_device_option(parser, "; under torchrun, cuda is each process's own GPU")
    add("--tensorboard", action="store_true", help="write TensorBoard events too (needs the extra `train`)")
    if isinstance(parser, Parser):
        parser.show_first(COMMON)


def run(options: argparse.Namespace) -> int:
    """Train, or go on training, in this process or in all that torchrun started; returns the exit code."""
    return in_processes(partial(_train, options), options.device)


def _train(options: argparse.Namespace, ranks: Ranks, device: str) -> int:
    torch.manual_seed(options.seed)
    caches = open_caches(options.caches)
    labels = load_labels(options.labels, options.task)
    matching, set_aside = with_validation(match_labels(labels, caches.videos()))
    config = network_config(options, caches.width, labels)
    clips = partial(
        labelled_clips, caches, matching.by_video, classes=bool(labels.classes), motion=config.strategy == "motion"
    )
    learnt_from, held_out = clips("train"), clips("val")
    _check_clips(learnt_from, matching, labels)
    if ranks.leads:
        _say_what_was_matched(labels, matching, learnt_from, held_out, set_aside, options.out)
    origin = replace(
        caches.origin,
        classes=labels.classes,
        labels_sha256=matching.labels_sha256(labels.classes),
        split_sha256=matching.split_sha256(),
    )

    def keep_best(model: VideoTokenMerging) -> None:
        save_model(options.out, model, origin)
        write_matching(options.out / "videos.csv", matching, labels, caches.clips)

    task = TrainingTask[VideoTokenMerging](
        objective=labelled_objective(options.auxiliary_weight),
        batches=partial(learnt_from.shuffled, options.batch_clips, options.seed, ranks=ranks),
        steps_per_epoch=learnt_from.count(options.batch_clips),
        validate=lambda model: figures(
            labels.task, predict_videos(model, held_out.in_order(options.batch_clips, ranks), ranks)
        ),
        scores=("accuracy", "log_loss") if labels.task == "classification" else ("mse",),
        keep_best=keep_best,
    )
    settings = training_settings(options)
    asked = asked_for(options, config, settings)
    asked |= {"labels": origin.labels_sha256, "split": origin.split_sha256, "clips": _clips_sha256(caches, matching)}
    with TrainingLog(options.out, settings.epochs, tensorboard=options.tensorboard) as log:
        record = json.dumps(json.loads(json.dumps(asked)), sort_keys=True)
        network = VideoTokenMerging(config).to(device)
        progress = train(
            network, task, settings, options.out, run=record, ranks=ranks, begin=log.begin, report=log.report
        )
    if ranks.leads:
        print(f"{options.out}: {_outcome(progress, task.scores[0])}")
    return 0


def _clips_sha256(caches: Caches, matching: Matching) -> str:
    """Hash of the clips of all labelled videos and of what made them."""
    fingerprints = sorted({str(cache.run["fingerprint"]) for cache in caches.opened})
    source = ClipSource(caches, dict.fromkeys(matching.by_video, None))
    return " ".join([*fingerprints, source.sha256()[:16]])


def _check_clips(learnt_from: ClipSource, matching: Matching, labels: LabelSet) -> None:
    if not learnt_from.entries:
        named = ", ".join(dict.fromkeys(label.video for label in matching.missing[:3])) or "none"
        raise InputError(
            f"no cached clip for training: {len(matching.missing)} of {counted(len(labels.labels), 'label')} "
            f"without a cached video ({named}); labels name a video by its id, its file name, or as Breakfast does"
        )


def _say_what_was_matched(
    labels: LabelSet, matching: Matching, learnt_from: ClipSource, held_out: ClipSource, set_aside: int, out: Path
) -> None:
    classes = f", {counted(len(labels.classes), 'class')}" if labels.classes else ""
    own = " (a tenth of the training videos: the labels have no validation split)" if set_aside else ""
    print(
        f"{labels.task}{classes}: {counted(learnt_from.videos, 'video')} "
        f"({counted(len(learnt_from.entries), 'clip')}) to train on, {counted(held_out.videos, 'video')} "
        f"({counted(len(held_out.entries), 'clip')}) to validate on{own};"
    )
    print(
        f"{counted(len(matching.missing), 'label')} without a cached video, "
        f"{counted(len(matching.unlabelled), 'cached video')} without a label: {out / 'videos.csv'}"
    )


def _outcome(progress: Progress, name: str) -> str:
    if not progress.best:
        return "no epoch yet"
    value = progress.best[0] if name == "accuracy" else -progress.best[0]
    stopped = ", stopped early" if progress.stopped else ""
    return (
        f"{counted(progress.epochs_done, 'epoch')}, best validation {name} {value:.4f} "
        f"in epoch {progress.best_epoch + 1}{stopped}"
    )
