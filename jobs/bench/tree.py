"""`vtm bench tree`: what a merge tree promises, measured on the source tokens of real videos.

Four kinds of rows. `tree`: seconds to grow one a clip and to cut it, and how far the fidelity told is from the one
measured. `equal fidelity`: how many tokens the tree takes for the mean cosine of `coverage`, made anew for each share.
`fidelity F`: tokens where every clip is cut at a wanted fidelity, and the fixed share whose worst clip is as good.
`video`: a stream over all clips, from their stored tokens alone, beside one tree over all of them and `coverage` clip
by clip. `hours`: the clips of all videos over and over, their channels permuted each time so that no film comes twice.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.bench.fidelity import clip_tokens
from jobs.bench.whole_videos import Measured, hours_long, token_set, unit_fidelity, whole_video
from pipeline.encode.devices import resolve_compute_dtype, this_device
from vtm import Grid, fidelity, load_encoder, merge_plan, merge_tree, tree_of_fidelity

SHARES = (0.1, 0.05, 0.02, 0.01)
TARGETS = (0.9, 0.95)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("videos", nargs="+", help="files or addresses")
    parser.add_argument("--encoder", required=True, help="folder or hub id")
    parser.add_argument("--layer", type=int, default=9, help="block whose output is taken")
    parser.add_argument("--fps", type=Fraction, default=Fraction(1))
    parser.add_argument("--clip-frames", type=int, default=60)
    parser.add_argument("--clips", type=int, default=4, help="full clips of each video, from its start")
    parser.add_argument("--whole", action="store_true", help="measure whole videos as well, which takes minutes")
    parser.add_argument("--hours", type=float, default=0, help="merge a stream of so many hours as well (none)")
    parser.add_argument("--tokens-per-video", type=int, default=4096, help="tokens that it is merged to (4096)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    dtype = getattr(torch, resolve_compute_dtype("auto", this_device(args.device)))
    encoder = load_encoder(args.encoder, layer=args.layer, dtype=dtype, device=args.device)
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
            rows += [{"name": "video", **facts, **row} for row in whole_video(clips, grid)]
        everything += clips
    rows += [
        {"name": f"fidelity {target}", "clips": len(everything), **wanted(everything, grid, target)}
        for target in TARGETS
    ]
    if args.hours:
        sets = [token_set(clip, index, grid) for index, clip in enumerate(everything)]
        del everything
        clip_s = float(args.clip_frames / args.fps)
        rows.append(
            {"name": "hours", **hours_long(sets, round(args.hours * 3600 / clip_s), clip_s, args.tokens_per_video)}
        )
    if args.json:
        machine = f"{args.device} {platform.machine()}, torch {torch.__version__}, {dtype}"
        print(json.dumps({"machine": machine, "rows": rows}))
    else:
        for row in rows:
            print(", ".join(f"{key} {value}" for key, value in row.items()))
    return 0


def grown(x_1NC: Tensor, grid: Grid) -> Measured:
    """A clip's tree, and the seconds it took."""
    start = time.perf_counter()
    tree = merge_tree(x_1NC, grid=grid)
    grow_s = time.perf_counter() - start
    tree = tree.ordered_by_center(grid)
    start = time.perf_counter()
    tree.plan(keep=SHARES[1])
    return Measured(x_1NC, tree, grow_s, time.perf_counter() - start)


def growing(clips: Sequence[Measured]) -> dict[str, Any]:
    """Seconds, and the greatest difference between told and measured."""
    apart = []
    for clip in clips:
        for share in SHARES:
            plan = clip.tree.plan(keep=share)
            apart.append(abs(float(clip.tree.fidelity_at(plan.num_groups)) - float(fidelity(clip.x_1NC, plan))))
    return {
        "grow_s": round(min(clip.grow_s for clip in clips), 3),
        "cut_s": round(min(clip.cut_s for clip in clips), 5),
        "told_apart": round(max(apart), 6),
    }


def equal_fidelity(clips: Sequence[Measured], grid: Grid) -> list[dict[str, Any]]:
    """For each share: the tree's tokens over those of `coverage`, at its mean cosine over all clips."""
    rows = []
    for share in SHARES:
        plans = [
            merge_plan(clip.x_1NC, strategy="coverage", grid=grid, keep=share, seed=i) for i, clip in enumerate(clips)
        ]
        anew = float(
            np.mean([unit_fidelity(clip, plan.group, plan.num_groups) for clip, plan in zip(clips, plans, strict=True)])
        )
        curve_M = torch.stack([clip.tree.fidelities()[0] for clip in clips]).mean(dim=0)
        tokens = 1 + int((curve_M < anew).sum())
        rows.append(
            {
                "keep": share,
                "coverage": round(anew, 4),
                "tree": round(float(curve_M[plans[0].num_groups - 1]), 4),
                "tokens_saved": round(1 - tokens / plans[0].num_groups, 3),
            }
        )
    return rows


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench on its own."""
    parser = argparse.ArgumentParser(prog="vtm bench tree", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    return run(parser.parse_args(argv))
