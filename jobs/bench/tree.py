"""`vtm bench tree`: what a merge tree promises, measured on the source tokens of real videos.

Four kinds of rows. `tree`: seconds to grow one a clip and to cut it, and how far the fidelity told is from the one
measured. `equal fidelity`: how many tokens the tree takes for the mean cosine of `coverage`, made anew for each share.
`fidelity F`: tokens where every clip is cut at a wanted fidelity, and the fixed share whose worst clip is as good.
`video`: a stream over all clips of a video, the last and shorter one included, from their stored tokens alone, beside
one tree over all of them and `coverage` clip by clip. `hours`: the clips of all videos over and over, their channels
permuted each time so that no film comes twice.
"""

from __future__ import annotations

import argparse
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.bench.fidelity import clip_tokens, no_full_clip
from jobs.bench.machine import machine_name
from jobs.bench.numbers import count, share, zero_or_more
from jobs.bench.options import add_clip_options, add_encoder_options, add_json_option, encoder_of
from jobs.bench.output import show
from jobs.bench.timing import timed
from jobs.bench.whole_videos import LLOYD_STEPS, hours_long, token_set, unit_fidelity, whole_video
from jobs.training.device import add_device_option
from vtm import Grid, MergeTree, fidelity, merge_plan, merge_tree, tree_of_fidelity
from vtm.lloyd import lloyd_groups
from vtm.segments import scattered_sum
from vtm.tree import cut_groups

SHARES = (0.1, 0.05, 0.02, 0.01)
TARGETS = (0.9, 0.95)
STORED = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A clip with its tree."""

    x_1NC: Tensor
    tree: MergeTree
    """From a base of a fifth of the tokens, in the order of their centres."""
    grow_s: float
    cut_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_clip_options(parser, clips=4, which="full clips of each video")
    add_encoder_options(parser)
    parser.add_argument("--whole", action="store_true", help="measure whole videos as well, which takes minutes")
    parser.add_argument(
        "--stored", type=share, default=STORED, help="share of the tokens that a run stores of each clip"
    )
    parser.add_argument(
        "--hours", type=zero_or_more, default=0.0, help="hours of a stream that is merged as well; 0 is none"
    )
    parser.add_argument("--tokens-per-video", type=count, default=4096, help="tokens that it is merged to")
    add_device_option(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    encoder = encoder_of(args)
    grid = (args.clip_frames, *encoder.grid_hw)
    rows: list[dict[str, Any]] = []
    everything: list[Measured] = []
    for video in args.videos:
        found = islice(clip_tokens(encoder, video, args.fps, args.clip_frames), args.clips)
        clips = [grown(x_1NC, grid) for x_1NC, _ in found]
        if not clips:
            continue
        facts = {"video": Path(video).name, "clips": len(clips)}
        rows.append({"name": "tree", **facts, **growing(clips)})
        rows += [{"name": "equal fidelity", **facts, **row} for row in equal_fidelity(clips, grid)]
        if args.whole:
            every = clip_tokens(encoder, video, args.fps, args.clip_frames, shorter_too=True)
            all_clips = [x_1NC for x_1NC, _ in every]
            video_rows = whole_video(all_clips, encoder.grid_hw, args.stored)
            rows += [{"name": "video", **facts, "clips": len(all_clips), **row} for row in video_rows]
        everything += clips
    if not everything:
        raise no_full_clip(args)
    rows += [
        {"name": f"fidelity {target}", "clips": len(everything), **wanted(everything, grid, target)}
        for target in TARGETS
    ]
    if args.hours:
        sets = [token_set(clip.tree, clip.x_1NC, index, grid) for index, clip in enumerate(everything)]
        del everything
        clip_s = float(args.clip_frames / args.fps)
        rows.append(
            {"name": "hours", **hours_long(sets, round(args.hours * 3600 / clip_s), clip_s, args.tokens_per_video)}
        )
    show(rows, machine=machine_name(args.device, dtype=encoder.dtype), as_json=args.json)
    return 0


def grown(x_1NC: Tensor, grid: Grid) -> Measured:
    """A clip's tree, and the seconds it took."""
    unordered, grow_s = timed(partial(merge_tree, x_1NC, grid=grid), x_1NC.device)
    tree = unordered.ordered_by_center(grid)
    _, cut_s = timed(partial(tree.plan, keep=SHARES[1]), x_1NC.device)
    return Measured(x_1NC, tree, grow_s, cut_s)


def growing(clips: Sequence[Measured]) -> dict[str, Any]:
    """Seconds, and the greatest difference between told and measured."""
    apart = []
    for clip in clips:
        for keep in SHARES:
            plan = clip.tree.plan(keep=keep)
            apart.append(abs(float(clip.tree.fidelity_at(plan.num_groups)) - float(fidelity(clip.x_1NC, plan))))
    return {
        "grow_s": round(min(clip.grow_s for clip in clips), 3),
        "cut_s": round(min(clip.cut_s for clip in clips), 5),
        "told_apart": round(max(apart), 6),
    }


def equal_fidelity(clips: Sequence[Measured], grid: Grid) -> list[dict[str, Any]]:
    """For each share: the tree's tokens over those of `coverage`, at its mean cosine over all clips."""
    rows = []
    for keep in SHARES:
        plans = [
            merge_plan(clip.x_1NC, strategy="coverage", grid=grid, keep=keep, seed=i) for i, clip in enumerate(clips)
        ]
        pairs = zip(clips, plans, strict=True)
        anew = float(np.mean([unit_fidelity(clip.x_1NC, plan.group, plan.num_groups) for clip, plan in pairs]))
        curve_M = torch.stack([clip.tree.fidelities()[0] for clip in clips]).mean(dim=0)
        tokens = 1 + int((curve_M < anew).sum())
        most = plans[0].num_groups
        regrouped = 1 + bisect_left(range(1, most), anew, key=partial(regrouped_fidelity, clips))
        rows.append(
            {
                "keep": keep,
                "coverage": round(anew, 4),
                "tree": round(float(curve_M[plans[0].num_groups - 1]), 4),
                "tokens_saved": round(1 - tokens / most, 3),
                "with_lloyd": round(regrouped_fidelity(clips, most), 4),
                "saved_with_lloyd": round(1 - regrouped / most, 3),
            }
        )
    return rows


def regrouped_fidelity(clips: Sequence[Measured], num_tokens: int) -> float:
    """Mean cosine of a cut after two Lloyd steps of the base's tokens, as readers take them."""
    found = []
    for clip in clips:
        group_N = clip.tree.base.group[0]
        sum_MC = scattered_sum(F.normalize(clip.x_1NC[0], dim=1).float(), group_N, clip.tree.base.num_groups)
        into_M = cut_groups(clip.tree.parents, clip.tree.losses, num_tokens)[1][0]
        into_M = lloyd_groups(sum_MC, into_M, num_tokens, LLOYD_STEPS)
        kept_MC = scattered_sum(sum_MC, into_M, num_tokens)
        found.append(float(torch.linalg.vector_norm(kept_MC, dim=1).double().sum()) / len(group_N))
    return float(np.mean(found))


def wanted(clips: Sequence[Measured], grid: Grid, target: float) -> dict[str, Any]:
    """Tokens at a wanted fidelity, and the share at which the worst clip has it."""
    shares, reached = [], []
    for clip in clips:
        tree = tree_of_fidelity(clip.x_1NC, grid=grid, fidelity=target)
        shares.append(tree.base.num_groups / clip.x_1NC.shape[1])
        reached.append(float(fidelity(clip.x_1NC, tree.base)))
    return {
        "share": round(float(np.mean(shares)), 4),
        "share_least": round(min(shares), 4),
        "share_most": round(max(shares), 4),
        "worst_clip": round(min(reached), 4),
        "saved_over_fixed_share": round(1 - float(np.mean(shares)) / max(shares), 3),
    }
