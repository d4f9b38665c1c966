"""`vtm train`: learnable merging from token caches, with labels (the paper's network) or without (its scorer)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from torch import nn

from jobs.clip_batches import ClipSource, labelled_clips, open_caches, unlabelled_clips
from jobs.labels import load_labels
from jobs.training_log import TrainingLog
from pipeline.errors import InputError, SettingsError
from vtm.network import (
    Auxiliary,
    NetworkConfig,
    NetworkStrategy,
    SaliencyScorer,
    ScorerConfig,
    VideoTokenMerging,
    save_model,
)
from vtm.training import Task, TrainingSettings, figures, labelled_objective, predict_videos, train
from vtm.training.unsupervised import credit_objective, scorer_figures

Model = TypeVar("Model", bound=nn.Module)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; the defaults are the paper's, but for what trains the scores."""
    network, settings = NetworkConfig(in_width=1, outputs=1), TrainingSettings()
    add = parser.add_argument
    add("caches", metavar="CACHE", type=Path, nargs="+", help="run folders of `vtm extract --strategy none`")
    add("--out", metavar="DIR", type=Path, required=True, help="trained folder; a run in it goes on")
    add("--labels", metavar="PATH", type=Path, help="label file or folder; without it the scorer alone learns")
    strategy_help = "motion is that of the cached tokens, which stands in for the codec's"
    add("--strategy", choices=get_args(NetworkStrategy), default=network.strategy, help=strategy_help)
    add("--partition-factor", type=int, default=network.partition_factor, help="one target in this many tokens")
    add("--merge-share", type=float, default=network.merge_share, help="share of the sources that merge")
    add("--widths", type=int, nargs="+", default=network.widths, help="channels after each block")
    add("--windows", type=int, nargs="+", default=network.windows_frames, help="frames of each block's window")
    add("--heads", type=int, default=network.heads)
    add("--head-width", type=int, default=network.head_width)
    add("--dropout", type=float, default=network.dropout)
    auxiliary_help = "what trains the scores: attention is the paper's path, pooling ours (docs/learnable.md)"
    add("--auxiliary", choices=get_args(Auxiliary), default="pooling", help=auxiliary_help)
    add("--auxiliary-weight", type=float, default=1.0, help="what each auxiliary loss counts")
    add("--batch", type=int, default=16, help="clips a step")
    add("--epochs", type=int, default=settings.epochs)
    add("--warmup-epochs", type=int, default=settings.warmup_epochs)
    add("--learning-rate", type=float, default=settings.learning_rate)
    add("--weight-decay", type=float, default=settings.weight_decay)
    add("--patience", type=int, default=settings.patience, help="epochs without improvement before stopping (0: never)")
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--tensorboard", action="store_true", help="write TensorBoard events too (needs the extra `train`)")


def run(options: argparse.Namespace) -> int:
    """Train, or go on training; returns the exit code."""
    torch.manual_seed(options.seed)
    caches = open_caches(options.caches)
    in_width = next(int(cache[0].tokens.shape[1]) for cache in caches if len(cache))
    if options.labels is None:
        return _train_scorer(options, caches, in_width)
    labels = load_labels(options.labels)
    config = network_config(options, in_width, labels.outputs, labels.task)
    clips = partial(labelled_clips, caches, labels, motion=config.strategy == "motion")
    held_out = clips("val" if labels.counts()["val"] else "test")
    task = Task[VideoTokenMerging](
        objective=labelled_objective(options.auxiliary_weight),
        **_data(options, clips("train"), "training"),
        validate=lambda model: figures(labels.task, predict_videos(model, held_out.in_order(options.batch))),
        score="accuracy" if labels.task == "classification" else "mse",
        keep_best=partial(save_model, options.out),
    )
    return _train(options, VideoTokenMerging(config), task)


def network_config(options: argparse.Namespace, in_width: int, outputs: int, task: Any) -> NetworkConfig:
    """The network that the options describe."""
    return NetworkConfig(
        in_width=in_width,
        outputs=outputs,
        task=task,
        strategy=options.strategy,
        widths=tuple(options.widths),
        windows_frames=tuple(options.windows),
        partition_factor=options.partition_factor,
        merge_share=options.merge_share,
        heads=options.heads,
        head_width=options.head_width,
        dropout=options.dropout,
        auxiliary=options.auxiliary,
    )


def _train_scorer(options: argparse.Namespace, caches: Any, in_width: int) -> int:
    if options.strategy != "learnable":
        raise SettingsError(f"--strategy {options.strategy} has nothing to learn without --labels: give them too")
    held_out = unlabelled_clips(caches, held_out=True)
    learnt_from = unlabelled_clips(caches, held_out=False)
    if not held_out.entries or not learnt_from.entries:
        raise InputError("training without labels holds out the last clips of each video: give videos of several clips")
    factor = options.partition_factor
    task = Task[SaliencyScorer](
        objective=credit_objective(factor),
        **_data(options, learnt_from, "training"),
        validate=lambda model: scorer_figures(model, held_out.in_order(options.batch), factor),
        score="fidelity",
        keep_best=partial(save_model, options.out),
    )
    return _train(options, SaliencyScorer(ScorerConfig(in_width=in_width)), task)


def _data(options: argparse.Namespace, source: ClipSource, purpose: str) -> dict[str, Any]:
    if not source.entries:
        raise InputError(
            f"no cached clip for {purpose}: labels name a video by its id, its file name, or as Breakfast does"
        )
    print(f"{len(source.entries)} clips of {source.videos} videos for {purpose}")
    batches: Callable[[int], Any] = partial(source.shuffled, options.batch, options.seed)
    return {"batches": batches, "steps_per_epoch": source.count(options.batch)}


def _train(options: argparse.Namespace, model: Model, task: Task[Model]) -> int:
    settings = TrainingSettings(
        epochs=options.epochs,
        warmup_epochs=min(options.warmup_epochs, options.epochs),
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        patience=options.patience,
        seed=options.seed,
    )
    config: Any = model.config
    asked = {**asdict(settings), **asdict(config), "batch": options.batch, "steps_per_epoch": task.steps_per_epoch}
    asked |= {"auxiliary_weight": options.auxiliary_weight, "target_share": options.partition_factor}
    with TrainingLog(options.out, settings.epochs, tensorboard=options.tensorboard) as log:
        record = json.dumps(json.loads(json.dumps(asked)), sort_keys=True)
        progress = train(model.to(options.device), task, settings, options.out, run=record, report=log.report)
    print(
        f"{options.out}: {progress.epochs_done} epochs, best {task.score} {abs(progress.best_score or 0):.4f} "
        f"in epoch {progress.best_epoch + 1}{', stopped early' if progress.stopped else ''}"
    )
    return 0
