"""`vtm eval`: a trained network on the test videos, or a trained scorer's fidelity at several shares kept."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from jobs.clip_batches import labelled_clips, open_caches
from jobs.labels import load_labels
from jobs.labels.values import SPLITS
from pipeline import TokenCache
from pipeline.encode import clip_seed
from pipeline.errors import SettingsError
from vtm import Strategy, fidelity, merge_plan
from vtm.network import load_network, load_scorer
from vtm.training import figures, predict_videos

CURVE: tuple[Strategy, ...] = ("naive", "center", "learnable", "coverage")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("trained", metavar="DIR", type=Path, help="what `vtm train` wrote")
    add("caches", metavar="CACHE", type=Path, nargs="+", help="run folders of `vtm extract --strategy none`")
    add("--labels", metavar="PATH", type=Path, help="label file or folder: score the network's predictions")
    add("--split", choices=SPLITS, default="test")
    add("--keep", type=float, nargs="+", default=(0.02, 0.05, 0.1, 0.2), help="shares of the rate-fidelity curve")
    add("--batch", type=int, default=16, help="clips together")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Evaluate and print; returns the exit code."""
    caches = open_caches(options.caches)
    facts = _fidelity_curve(options, caches) if options.labels is None else _score(options, caches)
    if options.json:
        print(json.dumps(facts))
        return 0
    for row in facts["rows"]:
        print(
            "  ".join(f"{name} {value:.4f}" if isinstance(value, float) else str(value) for name, value in row.items())
        )
    return 0


def _score(options: argparse.Namespace, caches: Sequence[TokenCache]) -> dict[str, Any]:
    labels = load_labels(options.labels)
    network = load_network(options.trained, options.device)
    if (network.config.task, network.config.outputs) != (labels.task, labels.outputs):
        raise SettingsError(
            f"{options.trained} was trained for a {network.config.task} with {network.config.outputs} outputs, "
            f"{options.labels} is a {labels.task} with {labels.outputs}"
        )
    source = labelled_clips(caches, labels, options.split, motion=network.config.strategy == "motion")
    found = figures(labels.task, predict_videos(network, source.in_order(options.batch)))
    return {"rows": [{"split": options.split, "videos": source.videos, "clips": len(source.entries), **found}]}


@torch.no_grad()
def _fidelity_curve(options: argparse.Namespace, caches: Sequence[TokenCache]) -> dict[str, Any]:
    """Mean cosine of a token to its group's mean, by strategy and share kept, over all clips."""
    scorer = load_scorer(options.trained, options.device)
    if scorer.reads != "patches":
        raise SettingsError(f"{options.trained} scores keys, and caches hold patches: evaluate it with `vtm extract`")
    rows = []
    for keep in options.keep:
        sums: dict[str, float] = dict.fromkeys(CURVE, 0.0)
        clips = 0
        for cache in caches:
            for clip in cache:
                patches_1NC = clip.unmerged().float()[None].to(options.device)
                saliency_1N = scorer(patches_1NC, clip.grid_thw)
                clips += 1
                for strategy in CURVE:
                    plan = merge_plan(
                        patches_1NC,
                        strategy=strategy,
                        grid=clip.grid_thw,
                        keep=keep,
                        seed=clip_seed(clip.clip_id),
                        saliency=saliency_1N,
                    )
                    sums[strategy] += fidelity(patches_1NC, plan).item()
        rows.append({"keep": keep, **{strategy: total / clips for strategy, total in sums.items()}})
    return {"clips": clips, "rows": rows}
