"""`vtm bench fidelity`: how well merged tokens represent the tokens of real videos, by strategy and share kept.

The figure is the cosine between each source token and the mean that represents it, over all tokens of a video's first
clips: its mean and its 5th percentile. Beside the strategies stand `pool`, average pooling by whatever box of space and
time suits a clip best; `random` targets; `ToMe rounds`, half-and-half rounds with size-weighted keys; and `k-means`,
four Lloyd steps over all tokens from evenly spaced ones, as the practical upper bound. Both `coverage` and `k-means`
group by the tokens themselves; `coverage by keys` by the keys, as the strategies of the paper do.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.bench.low_cosine import low_cosine
from jobs.bench.machine import machine_name
from jobs.bench.numbers import share
from jobs.bench.options import add_clip_options, add_encoder_options, add_json_option, encoder_of
from jobs.bench.output import Columns, show
from jobs.bench.timing import timed
from jobs.training.device import add_device_option
from pipeline.counted import counted
from pipeline.encode.describe import picture_spec
from pipeline.errors import InputError
from pipeline.inputs.sources import identify
from pipeline.plan.clips import plan_clips
from pipeline.video import open_video, scan_video, timing_of
from vtm import (
    Encoder,
    Grid,
    MergePlan,
    bipartite_plan,
    fidelity,
    identity_plan,
    merge_plan,
    merge_tree,
    plan_from_targets,
    token_cosines,
)
from vtm.budget import Budget
from vtm.growing import base_for
from vtm.matching import nearest_directions
from vtm.partition import even_targets
from vtm.plan import token_positions

FRAMES_AT_A_TIME = 20
LLOYD_STEPS = 4
POOL_SLACK = 0.25
"""Pooling cannot leave any share: as much more or less of it counts as the same."""

Planner = Callable[[Tensor, Tensor, Grid, float, int], MergePlan]
"""(1, N, C) tokens, (1, N, D) keys, grid, share kept and seed to a plan."""


COLUMNS: Columns = {
    "video": lambda row: row["video"],
    "keep": lambda row: f"{row['keep']:g}",
    "": lambda row: row["name"],
    "mean cosine": lambda row: f"{row['mean_cosine']:.4f}",
    "5th pct": lambda row: f"{row['p5_cosine']:.3f}",
    "decide s": lambda row: f"{row['decide_s']:.2f}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_clip_options(parser, clips=4, which="full clips of each video")
    add_encoder_options(parser)
    parser.add_argument(
        "--keep",
        type=share,
        nargs="+",
        default=(0.2, 0.1, 0.05, 0.02, 0.01),
        help="shares of tokens left, one set of rows each",
    )
    parser.add_argument("--only", nargs="+", choices=tuple(PLANNERS), default=tuple(PLANNERS), help="rows to measure")
    add_device_option(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    encoder = encoder_of(args)
    grid = (args.clip_frames, *encoder.grid_hw)
    rows = []
    for video in args.videos:
        clips = list(islice(clip_tokens(encoder, video, args.fps, args.clip_frames), args.clips))
        for keep in args.keep if clips else ():
            for name in args.only:
                rows.append({"name": name, "video": Path(video).name, "keep": keep, **measure(name, clips, grid, keep)})
    if not rows:
        raise no_full_clip(args)
    show(rows, machine=machine_name(args.device, dtype=encoder.dtype), as_json=args.json, columns=COLUMNS)
    return 0


def no_full_clip(args: argparse.Namespace) -> InputError:
    """What is wrong where the videos are too short for the options."""
    return InputError(
        f"no video holds a full clip of {counted(args.clip_frames, 'frame')} at {args.fps} a second: "
        "give longer videos, or a smaller --clip-frames"
    )


def clip_tokens(
    encoder: Encoder, video: str, fps: Fraction, clip_frames: int, *, shorter_too: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (1, N, C) tokens and (1, N, D) keys, float32, of each full clip of a video, or of all its clips."""
    info = scan_video(identify(video))
    clips = plan_clips(info, fps=fps, clip_frames=clip_frames)
    if not shorter_too:
        clips = tuple(clip for clip in clips if len(clip.frame_pts) == clip_frames)
    with open_video(timing_of(info)) as opened:
        for decoded in opened.decode(clips, picture_spec(encoder.image)):
            blocks = torch.from_numpy(decoded.frames).split(FRAMES_AT_A_TIME)  # type: ignore[no-untyped-call]
            with torch.inference_mode():
                outputs = [encoder(encoder.normalise(block)) for block in blocks]
            patches_TPC = torch.cat([out.patches.float() for out in outputs])
            keys_TPD = torch.cat([out.keys.float() for out in outputs])
            yield patches_TPC.flatten(0, 1)[None], keys_TPD.flatten(0, 1)[None]


def measure(name: str, clips: Sequence[tuple[Tensor, Tensor]], grid: Grid, keep: float) -> dict[str, Any]:
    """One row's figures: tokens_left of a clip, mean_cosine and p5_cosine over the tokens of all clips."""
    cosines, seconds = [], []
    for seed, (x_1NC, keys_1ND) in enumerate(clips):
        plan, decide_s = timed(partial(PLANNERS[name], x_1NC, keys_1ND, grid, keep, seed), x_1NC.device)
        seconds.append(decide_s)
        cosines.append(token_cosines(x_1NC, plan).flatten())
    cosine_K = torch.cat(cosines).double()
    return {
        "clips": len(clips),
        "tokens_left": plan.num_groups,
        "mean_cosine": round(float(cosine_K.mean()), 4),
        "p5_cosine": round(low_cosine(cosine_K), 4),
        "decide_s": round(min(seconds), 3),
    }


def _strategy(name: Any) -> Planner:
    def plan(x_1NC: Tensor, keys_1ND: Tensor, grid: Grid, keep: float, seed: int) -> MergePlan:
        return merge_plan(keys_1ND, strategy=name, grid=grid, keep=keep, seed=seed, features=x_1NC)

    return plan


def _tree(x_1NC: Tensor, keys_1ND: Tensor, grid: Grid, keep: float, seed: int) -> MergePlan:
    """A cut of the tree."""
    return merge_tree(x_1NC, grid=grid, base=base_for(keep), seed=seed).plan(keep=keep)


def _coverage_by_keys(x_1NC: Tensor, keys_1ND: Tensor, grid: Grid, keep: float, seed: int) -> MergePlan:
    return merge_plan(keys_1ND, strategy="coverage", grid=grid, keep=keep, seed=seed)


def _random(x_1NC: Tensor, keys_1ND: Tensor, grid: Grid, keep: float, seed: int) -> MergePlan:
    flat_1N = torch.zeros(keys_1ND.shape[:2])
    return merge_plan(keys_1ND, strategy="learnable", grid=grid, keep=keep, seed=seed, saliency=flat_1N)


def _pool(x_1NC: Tensor, keys_1ND: Tensor, grid: Grid, keep: float, seed: int) -> MergePlan:
    """Average pooling by the box that suits the clip best."""
    plans = [box_plan(grid, box, x_1NC.device) for box in pool_boxes(grid, keep)]
    return max(plans, key=lambda plan: float(fidelity(x_1NC, plan)))


def pool_boxes(grid: Grid, keep: float) -> list[Grid]:
    """The boxes of t × s × s patches that leave the share to within POOL_SLACK, or else the nearest to it."""
    frames, rows, columns = grid
    misses = {}
    for box in ((t, s, s) for t in range(1, frames + 1) for s in range(1, min(rows, columns) + 1)):
        left = math.prod(-(-length // side) for length, side in zip(grid, box, strict=True))
        misses[box] = abs(math.log(left / (keep * frames * rows * columns)))
    bound = max(math.log(1 + POOL_SLACK), min(misses.values()))
    return [box for box, miss in misses.items() if miss <= bound]


def box_plan(grid: Grid, box: Grid, device: torch.device) -> MergePlan:
    """One group a box, those at the end of an axis smaller."""
    _, rows, columns = (-(-length // side) for length, side in zip(grid, box, strict=True))
    t_N, y_N, x_N = token_positions(grid, device).unbind(dim=1)
    group_1N = ((t_N // box[0] * rows + y_N // box[1]) * columns + x_N // box[2])[None]
    sizes_1M = group_1N[0].bincount()[None]
    first_1M = group_1N.argsort(dim=1, stable=True).gather(1, sizes_1M.cumsum(dim=1) - sizes_1M)
    return MergePlan(group_1N, sizes_1M.shape[1], first_1M)


def _tome_rounds(x_1NC: Tensor, keys_1ND: Tensor, grid: Grid, keep: float, seed: int) -> MergePlan:
    """ToMe's half and half (Bolya et al. 2023), repeated until the share is reached; keys are means by size."""
    left = Budget(keep=keep).targets(keys_1ND.shape[1])
    plan = identity_plan(1, keys_1ND.shape[1], keys_1ND.device)
    while plan.num_groups > left:
        remove = min(plan.num_groups // 2, plan.num_groups - left)
        plan = plan.then(bipartite_plan(plan.mean(keys_1ND), remove))
    return plan


def _paper_rounds(x_1NC: Tensor, keys_1ND: Tensor, grid: Grid, keep: float, seed: int) -> MergePlan:
    """γ = 6 and R = 0.8 · |S|, repeated until the share is reached."""
    left, now_keys_1ND = Budget(keep=keep).targets(keys_1ND.shape[1]), keys_1ND
    plan = identity_plan(1, keys_1ND.shape[1], keys_1ND.device)
    while plan.num_groups > left:
        now = plan.num_groups
        target_1M = torch.arange(0, now, 6, device=keys_1ND.device)[None]
        share = min(0.8, (now - left) / (now - target_1M.shape[1]))
        plan = plan.then(plan_from_targets(now_keys_1ND, target_1M, share))
        now_keys_1ND = plan.mean(keys_1ND)
    return plan


def _k_means(x_1NC: Tensor, keys_1ND: Tensor, grid: Grid, keep: float, seed: int) -> MergePlan:
    count = Budget(keep=keep).targets(x_1NC.shape[1])
    unit_1NC = F.normalize(x_1NC, dim=2)
    target_1M = even_targets(x_1NC.shape[1], count)[None].to(x_1NC.device)
    directions_1MC = unit_1NC[:, target_1M[0]]
    for step in range(LLOYD_STEPS + 1):
        nearest_1N, _ = nearest_directions(unit_1NC, directions_1MC)
        plan = MergePlan(nearest_1N, count, target_1M)
        if step < LLOYD_STEPS:
            directions_1MC = torch.where(
                plan.sizes[..., None] > 0, F.normalize(plan.sum(unit_1NC), dim=2), directions_1MC
            )
    return plan


PLANNERS: dict[str, Planner] = {
    "pool": _pool,
    "random": _random,
    "naive": _strategy("naive"),
    "center": _strategy("center"),
    "boundary": _strategy("boundary"),
    "paper rounds": _paper_rounds,
    "ToMe rounds": _tome_rounds,
    "coverage by keys": _coverage_by_keys,
    "coverage": _strategy("coverage"),
    "tree": _tree,
    "k-means": _k_means,
}
