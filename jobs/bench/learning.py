"""`vtm bench learning`: is learnable merging better than fixed strategies where saliency matters?

Clips of unrelated video in which a labelled picture shows in a part of a few frames; the network is trained from a
ViT's tokens to name the picture's class, once for each strategy and seed, and tested on other pictures in other video.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from jobs.bench.machine import machine_name
from jobs.bench.numbers import count
from jobs.bench.options import add_encoder_options, add_json_option
from jobs.bench.output import Columns, show
from jobs.bench.planted import (
    Frames,
    PlantedClips,
    PlantedLayout,
    plant,
    read_frames,
    read_scenes,
    split_in_time,
)
from jobs.bench.planted_tokens import token_encoder
from pipeline.counted import counted
from pipeline.errors import InputError
from vtm import load_encoder
from vtm.network import Auxiliary, NetworkConfig, NetworkStrategy, VideoTokenMerging
from vtm.network.network import SEED_STRIDE
from vtm.network.targets import area_cue, choose_targets
from vtm.plan import identity_plan
from vtm.sampling import gumbel_noise
from vtm.strategies import standardised
from vtm.training import ClipBatch, TrainingSettings, TrainingTask, figures, labelled_objective, predict_videos, train
from vtm.windows import layout_of, window_tokens

STRATEGIES: tuple[NetworkStrategy, ...] = get_args(NetworkStrategy)
CHOICE_PICTURES = 30
"""Pictures of each class that --choose tests on and training leaves out."""
WINDOWS_FRAMES = (2, 10, 20)
"""The ratios of the paper's (6, 30, 60), as near as 20 frames allow."""
PLACES = ("planted_target_share", "times_chance")
"""Where the targets lie; the baseline has none."""
SHOT_FRAMES = 60
"""Long videos are cut into pieces of this length, so that training and testing see parts of each."""


COLUMNS: Columns = {
    "": lambda row: row["name"],
    "accuracy": lambda row: f"{row['accuracy_mean']:.3f}",
    "least": lambda row: f"{row['accuracy_min']:.3f}",
    "most": lambda row: f"{row['accuracy_max']:.3f}",
    "targets on planted tokens": lambda row: f"{row['planted_target_share']:.3f}",
    "x chance": lambda row: f"{row['times_chance']:.2f}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_encoder_options(parser, "of a ViT with patches of 14 pixels")
    parser.add_argument(
        "--scenes", type=Path, required=True, help="folder with gallery/CLASS/*.jpg and query/CLASS/*.jpg"
    )
    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="unrelated videos to plant pictures in")
    parser.add_argument(
        "--test-videos", type=Path, nargs="+", help="videos to test in (default: the late parts of --videos)"
    )
    parser.add_argument(
        "--choose",
        action="store_true",
        help="for choosing settings: test on pictures left out of the gallery, in the late parts of --videos",
    )
    parser.add_argument(
        "--encoded", type=Path, metavar="FILE", help="file that keeps the encoded clips for the next run"
    )
    parser.add_argument("--strategy", nargs="+", choices=STRATEGIES, default=STRATEGIES, help="networks to train")
    parser.add_argument("--seeds", type=count, default=3, help="times that each is trained, with seeds from 0 on")
    parser.add_argument("--epochs", type=count, default=20, help="passes over the training clips")
    parser.add_argument("--windows", type=count, nargs=3, default=WINDOWS_FRAMES, help="frames of each block's window")
    parser.add_argument("--partition-factor", type=count, default=6, help="γ: one target in this many tokens")
    parser.add_argument("--merge-share", type=float, default=1.0, help="R as a share of the sources")
    parser.add_argument(
        "--auxiliary-scale", type=float, help="factor on equation 10's logits (default: the paper's 1/√C)"
    )
    parser.add_argument(
        "--auxiliary", choices=get_args(Auxiliary), default="pooling", help="what is trained beside the prediction"
    )
    parser.add_argument(
        "--draw-sharpness", type=float, default=1.0, help="factor on the scores that targets are drawn by (0: evenly)"
    )
    parser.add_argument("--weight-sharpness", type=float, default=3.0, help="a of weighted: weights are exp(a · s)")
    parser.add_argument(
        "--unscored",
        action="store_true",
        help="ablation: scores of 0, so that targets are drawn evenly and all tokens count alike",
    )
    parser.add_argument(
        "--planted-cue",
        type=float,
        metavar="FACTOR",
        help="ablation: motion goes by the planted region times FACTOR, as perfect scores would (theirs is 2)",
    )
    parser.add_argument(
        "--saliency-cue",
        type=float,
        metavar="FACTOR",
        help="motion goes by the encoder's own attention, standardised and squashed to (-1, 1), times FACTOR",
    )
    parser.add_argument("--train-per-class", type=count, default=100, help="clips of each class to train on")
    parser.add_argument("--test-per-class", type=count, default=60, help="clips of each class to test on")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Train every strategy with every seed and print what came of it; returns the exit code."""
    layout = PlantedLayout()
    clips = _clips(args, layout)
    if args.planted_cue is not None:
        clips = {split: replace(made, motion=made.planted.float() * args.planted_cue) for split, made in clips.items()}
    if args.saliency_cue is not None:
        clips = {
            split: replace(made, motion=standardised(made.saliency) * args.saliency_cue)
            for split, made in clips.items()
        }
    rows = []
    runs = [(strategy, seed) for strategy in args.strategy for seed in range(args.seeds)]
    for strategy, seed in tqdm(runs, unit="run", disable=args.json):
        rows.append({"strategy": strategy, "seed": seed, **train_one(clips, layout, strategy, seed, args)})
    summary = [summary_of(strategy, [row for row in rows if row["strategy"] == strategy]) for strategy in args.strategy]
    show(summary, machine=machine_name(), as_json=args.json, columns=COLUMNS, more={"runs": rows})
    return 0


def train_one(
    clips: dict[str, PlantedClips],
    layout: PlantedLayout,
    strategy: NetworkStrategy,
    seed: int,
    args: argparse.Namespace,
) -> dict[str, float]:
    """Train one network; returns its accuracy on the test clips after the last epoch, and where its targets lie."""
    torch.manual_seed(seed)
    config = NetworkConfig(
        in_width=clips["train"].patches.shape[2],
        outputs=int(clips["train"].target.max()) + 1,
        strategy=strategy,
        widths=(128, 96, 96),
        windows_frames=tuple(args.windows),
        partition_factor=args.partition_factor,
        merge_share=args.merge_share,
        heads=2,
        head_width=32,
        dropout=0.2,
        draw_sharpness=args.draw_sharpness,
        auxiliary=args.auxiliary,
        weight_sharpness=args.weight_sharpness,
        auxiliary_scale=args.auxiliary_scale,
    )
    network = VideoTokenMerging(config)
    if args.unscored:
        for name, parameter in network.named_parameters():
            if "to_saliency" in name or "to_score" in name:
                parameter.requires_grad_(False).zero_()
    shuffled = partial(_shuffled, clips["train"], layout, strategy, seed)
    test = list(_in_order(clips["test"], layout, strategy))
    task = TrainingTask[VideoTokenMerging](
        objective=labelled_objective(),
        batches=shuffled,
        steps_per_epoch=len(list(_order(clips["train"], seed, 0))),
        validate=lambda model: figures("classification", predict_videos(model, test)),
        scores=("accuracy", "log_loss"),
        keep_best=lambda _: None,
    )
    settings = TrainingSettings(epochs=args.epochs, warmup_epochs=min(2, args.epochs), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        train(network, task, settings, Path(folder))
    last = figures("classification", predict_videos(network.eval(), test))
    return {"accuracy": last["accuracy"], **_target_places(network, test, clips["test"].planted)}


def summary_of(strategy: NetworkStrategy, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A strategy's figures over all seeds, of which each row is one."""
    accuracies = [row["accuracy"] for row in rows]
    return {
        "name": "baseline" if strategy == "none" else strategy,
        "accuracy_mean": statistics.mean(accuracies),
        "accuracy_min": min(accuracies),
        "accuracy_max": max(accuracies),
        **{name: statistics.mean(row[name] for row in rows) for name in PLACES if name in rows[0]},
    }


@torch.no_grad()
def _target_places(network: VideoTokenMerging, test: Sequence[ClipBatch], planted_KN: Tensor) -> dict[str, float]:
    """Share of the first block's targets that lie on planted tokens, and how often that is what chance gives."""
    config = network.config
    if config.strategy == "none":
        return {}
    on_planted = targets = 0
    for batch, planted_BN in zip(test, planted_KN.split([len(batch.patches) for batch in test]), strict=True):  # type: ignore[no-untyped-call]
        plan = identity_plan(*batch.patches.shape[:2])
        score_BN = planted_BN.float()
        if config.strategy in ("center", "boundary"):
            score_BN = area_cue(config.strategy, plan, batch.grid)
        elif batch.motion is not None:
            score_BN = batch.motion
        elif config.strategy in ("learnable", "weighted"):
            factor = config.weight_sharpness if config.strategy == "weighted" else 1.0
            score_BN = config.draw_sharpness * factor * network.saliency(batch.patches)
        noise_BN = gumbel_noise([seed * SEED_STRIDE for seed in batch.seeds], batch.patches.shape[1])
        windows = layout_of(window_tokens(batch.grid, config.windows_frames[0]))
        (score,), (noise,), (planted,) = (windows.split(x) for x in (score_BN, noise_BN, planted_BN))
        chosen = choose_targets(config.strategy, (len(score), score.shape[1]), config.partition_factor, score, noise)
        on_planted += int(planted.gather(1, chosen).sum())
        targets += chosen.numel()
    share = on_planted / targets
    return {"planted_target_share": share, "times_chance": share / planted_KN.float().mean().item()}


def _order(clips: PlantedClips, seed: int, epoch: int, size: int = 16) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(clips.target), generator=generator)
    yield from order[: len(order) // size * size].view(-1, size)


def _shuffled(
    clips: PlantedClips, layout: PlantedLayout, strategy: NetworkStrategy, seed: int, epoch: int
) -> Iterator[ClipBatch]:
    for index in _order(clips, seed, epoch):
        yield _batch(clips, layout, strategy, index, first_seed=(seed * 1000 + epoch + 1) * len(clips.target))


def _in_order(clips: PlantedClips, layout: PlantedLayout, strategy: NetworkStrategy) -> Iterator[ClipBatch]:
    for start in range(0, len(clips.target), 40):
        yield _batch(clips, layout, strategy, torch.arange(start, min(start + 40, len(clips.target))), first_seed=0)


def _batch(
    clips: PlantedClips, layout: PlantedLayout, strategy: NetworkStrategy, index_B: Tensor, first_seed: int
) -> ClipBatch:
    return ClipBatch(
        patches=clips.patches[index_B].float(),
        grid=layout.grid,
        seeds=tuple(first_seed + int(index) for index in index_B),
        target=clips.target[index_B],
        videos=tuple(str(int(index)) for index in index_B),
        motion=clips.motion[index_B] if strategy == "motion" else None,
    )


def _clips(args: argparse.Namespace, layout: PlantedLayout) -> dict[str, PlantedClips]:
    """The encoded clips: those in the file of --encoded, or made now."""
    names = [field.name for field in fields(PlantedClips)]
    if args.encoded is not None and args.encoded.exists():
        kept = load_file(args.encoded)
        return {split: PlantedClips(*(kept[f"{split}.{name}"] for name in names)) for split in ("train", "test")}
    learnt = args.train_per_class
    pictures = {"train": ("gallery", 0, learnt), "test": ("query", 0, args.test_per_class)}
    if args.choose:
        left = learnt - CHOICE_PICTURES
        pictures = {"train": ("gallery", 0, left), "test": ("gallery", left, learnt)}
    # Before the videos, which take long to read.
    scenes = {split: read_scenes(args.scenes / folder, layout, *part) for split, (folder, *part) in pictures.items()}
    early, late = split_in_time(_shots(args.videos, layout), layout, first_share=0.6)
    if args.test_videos is not None and not args.choose:
        early, late = (_shots(paths, layout) for paths in (args.videos, args.test_videos))
        early, late = ([shot for shot in shots if len(shot) >= layout.frames] for shots in (early, late))
    if min(len(early), len(late)) < 2:
        raise InputError(
            f"the videos are too short: {counted(len(early), 'piece')} to train and {len(late)} to test on, "
            "2 of each at least"
        )
    encode = token_encoder(load_encoder(args.encoder, layer=args.layer), layout)
    clips = {
        split: plant(scenes[split], share, layout, encode, seed)
        for split, share, seed in (("train", early, 1), ("test", late, 2))
    }
    if args.encoded is not None:
        save_file({f"{split}.{name}": getattr(clips[split], name) for split in clips for name in names}, args.encoded)
    return clips


def _shots(paths: Sequence[Path], layout: PlantedLayout) -> list[Frames]:
    """Pieces of at most SHOT_FRAMES of each video, at one frame a second."""
    videos = [read_frames(path, layout.side_px) for path in paths]
    return [video[start : start + SHOT_FRAMES] for video in videos for start in range(0, len(video), SHOT_FRAMES)]
