"""Options of `vtm train` that describe the network and its training, and what they make."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any, get_args

from jobs.training.labels import LabelSet
from vtm.network import Auxiliary, NetworkConfig, NetworkStrategy
from vtm.training import Precision, TrainingSettings


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """What `network_config` reads, and the loss of its scores; the defaults are the paper's, but for that loss."""
    defaults, add = NetworkConfig(in_width=1, outputs=1), parser.add_argument
    strategy_help = "merging strategy; motion is computed from the cached tokens, not taken from the codec"
    add("--strategy", choices=get_args(NetworkStrategy), default=defaults.strategy, help=strategy_help)
    add(
        "--partition-factor",
        type=int,
        default=defaults.partition_factor,
        help="the paper's γ: every γ-th token is a merge target",
    )
    add("--merge-share", type=float, default=defaults.merge_share, help="share of the source tokens that are merged")
    add("--widths", type=int, nargs="+", default=defaults.widths, help="channels after each block")
    add("--windows", type=int, nargs="+", default=defaults.windows_frames, help="frames of each block's window")
    add("--heads", type=int, default=defaults.heads, help="attention heads of each block")
    add("--head-width", type=int, default=defaults.head_width, help="channels of an attention head")
    add("--dropout", type=float, default=defaults.dropout, help="share of attention outputs zeroed in training")
    add(
        "--weight-sharpness",
        type=float,
        default=defaults.weight_sharpness,
        help="the factor a of strategy weighted, whose weights are exp(a · score)",
    )
    auxiliary_help = (
        "auxiliary loss that trains the scores: attention is the paper's, pooling is ours (docs/learnable.md)"
    )
    add("--auxiliary", choices=get_args(Auxiliary), default="pooling", help=auxiliary_help)
    add("--auxiliary-weight", type=float, default=1.0, help="weight of each auxiliary loss")


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """What `training_settings` reads, and the size of a step; the defaults are the paper's."""
    defaults, add = TrainingSettings(), parser.add_argument
    add("--batch-clips", type=int, default=16, help="clips per step, of all processes together")
    add(
        "--epochs",
        type=int,
        default=defaults.epochs,
        help="total number of epochs; a larger number continues training",
    )
    add(
        "--warmup-epochs",
        type=int,
        default=defaults.warmup_epochs,
        help="epochs of linear warm-up of the learning rate",
    )
    add(
        "--learning-rate",
        type=float,
        default=defaults.learning_rate,
        help="learning rate after the warm-up; a cosine decay follows",
    )
    add("--weight-decay", type=float, default=defaults.weight_decay, help="weight decay of AdamW")
    add(
        "--clip-norm",
        type=float,
        default=defaults.clip_norm,
        help="clip the norm of the gradients to this; 0 does not clip",
    )
    precision_help = "precision of matrix products; bfloat16 is automatic mixed precision, for GPUs"
    add("--precision", choices=get_args(Precision), default=defaults.precision, help=precision_help)
    add(
        "--patience",
        type=int,
        default=defaults.patience,
        help="stop after this many epochs without improvement; 0 never stops early",
    )
    add("--seed", type=int, default=0, help="random seed of the initial weights, the order of clips and dropout")


def network_config(options: argparse.Namespace, in_width: int, labels: LabelSet) -> NetworkConfig:
    """The network that the options describe."""
    return NetworkConfig(
        in_width=in_width,
        outputs=labels.outputs,
        task=labels.task,
        strategy=options.strategy,
        widths=tuple(options.widths),
        windows_frames=tuple(options.windows),
        partition_factor=options.partition_factor,
        merge_share=options.merge_share,
        heads=options.heads,
        head_width=options.head_width,
        dropout=options.dropout,
        auxiliary=options.auxiliary,
        weight_sharpness=options.weight_sharpness,
    )


def training_settings(options: argparse.Namespace) -> TrainingSettings:
    """The training that the options describe."""
    return TrainingSettings(
        epochs=options.epochs,
        warmup_epochs=min(options.warmup_epochs, options.epochs),
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        patience=options.patience,
        seed=options.seed,
        precision=options.precision,
        clip_norm=options.clip_norm,
    )


def asked_for(options: argparse.Namespace, config: NetworkConfig, settings: TrainingSettings) -> dict[str, Any]:
    """What a checkpoint must have been asked for to be gone on from; epochs and patience may grow."""
    asked = {**asdict(settings), **asdict(config), "warmup_epochs": options.warmup_epochs}
    for name in ("epochs", "patience"):
        asked.pop(name)
    return asked | {"batch_clips": options.batch_clips, "auxiliary_weight": options.auxiliary_weight}
