"""`vtm bench merge`: time and peak memory of deciding on a merge and averaging, by strategy, with two peers.

Peers, written here from the papers' descriptions: `tome rounds`, half-and-half bipartite rounds repeated down to the
same share, each with its matrix of similarities and size-weighted means; `dense matrix`, the partition of `naive` and
one matrix of all similarities. Every row runs in a process of its own on the same random tokens, which are their own
keys; peak_bytes is what the merge allocates on top of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.bench.machine import machine_name
from jobs.bench.memory import peak_bytes
from jobs.bench.numbers import count, share
from jobs.bench.options import add_grid_options, add_json_option, add_repeats_option, add_threads_option
from jobs.bench.output import Columns, show
from jobs.bench.own_process import in_own_process
from jobs.bench.timing import repeated_s
from jobs.training.device import add_device_option
from pipeline.counted import counted
from vtm import STRATEGIES, Grid, bipartite_plan, merge_plan, merge_tree
from vtm.growing import base_for

Merge = Callable[[Tensor], Tensor]
"""(1, N, D) tokens to (1, M, D)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRequest:
    """What one row measures."""

    name: str
    grid: Grid
    dim: int
    keep: float
    repeats: int
    device: str
    threads: int


COLUMNS: Columns = {
    "dim": lambda row: str(row["dim"]),
    "": lambda row: row["name"],
    "ms": lambda row: f"{row['wall_s'] * 1e3:.1f}",
    "peak MB": lambda row: f"{row['peak_bytes'] / 1e6:.1f}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_grid_options(parser)
    parser.add_argument("--dim", type=count, nargs="+", default=(384, 1024), help="channels of tokens and keys")
    parser.add_argument("--keep", type=share, default=0.1, help="share of tokens left")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, help="rows to measure")
    add_repeats_option(parser, 5, "after one untimed; the fastest counts")
    add_device_option(parser)
    add_threads_option(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    grid = (args.clip_frames, args.patches[0], args.patches[1])
    rows = []
    for dim in args.dim:
        for row_name in args.only:
            request = RowRequest(
                name=row_name,
                grid=grid,
                dim=dim,
                keep=args.keep,
                repeats=args.repeats,
                device=args.device,
                threads=args.threads,
            )
            rows.append(in_own_process(measure_row, request))
    show(
        rows,
        machine=machine_name(args.device, args.threads),
        as_json=args.json,
        columns=COLUMNS,
        title=f"{counted(grid[0], 'frame')} of {grid[1]} x {grid[2]} tokens, {args.keep:.0%} kept",
    )
    return 0


@torch.inference_mode()
def measure_row(request: RowRequest) -> dict[str, Any]:
    """Time one merge; what a child process does. Returns the row: name, n, dim, tokens_left, wall_s, peak_bytes."""
    torch.set_num_threads(request.threads)
    device = torch.device(request.device)
    merge = merge_of(request.name, request.grid, request.keep)
    total = request.grid[0] * request.grid[1] * request.grid[2]
    merge_of(request.name, (1, 8, 8), request.keep)(torch.randn(1, 64, request.dim, device=device))
    x_1ND = torch.randn(1, total, request.dim, generator=torch.Generator().manual_seed(0)).to(device)
    before_bytes = peak_bytes(device)
    left = merge(x_1ND).shape[1]
    peak = peak_bytes(device) - before_bytes
    return {
        "name": request.name,
        "n": total,
        "dim": request.dim,
        "tokens_left": left,
        "wall_s": min(repeated_s(partial(merge, x_1ND), request.repeats, device)),
        "peak_bytes": peak,
    }


def merge_of(name: str, grid: Grid, keep: float) -> Merge:
    """The merge that a row's name means."""
    if name == "tree":
        return lambda x: merge_tree(x, grid=grid, base=base_for(keep)).plan(keep=keep).mean(x)
    if name == "tome rounds":
        return lambda x: tome_rounds(x, keep)
    if name == "vtm tome rounds":
        return lambda x: blocked_tome_rounds(x, keep)
    if name == "dense matrix":
        return lambda x: dense_merge(x, round(1 / keep))

    def merge(x_1ND: Tensor) -> Tensor:
        score_1N = x_1ND[..., 0].abs()
        strategy: Any = name
        plan = merge_plan(x_1ND, strategy=strategy, grid=grid, keep=keep, motion=score_1N, saliency=score_1N)
        return plan.mean(x_1ND)

    return merge


def tome_rounds(x_1ND: Tensor, keep: float) -> Tensor:
    """ToMe's matching (Bolya et al. 2023, section 3) with its whole matrix, round after round."""
    left = max(1, -(-round(x_1ND.shape[1] * keep * 1e6) // 10**6))
    x_ND, sizes_N1 = x_1ND[0], x_1ND.new_ones(x_1ND.shape[1], 1)
    while len(x_ND) > left:
        remove = min(len(x_ND) // 2, len(x_ND) - left)
        unit_ND = F.normalize(x_ND, dim=1)
        best_S, nearest_S = (unit_ND[0::2] @ unit_ND[1::2].T).max(dim=1)
        order_S = best_S.argsort(descending=True)
        merged_R, stay_U = order_S[:remove], order_S[remove:]
        weighted_ND = x_ND * sizes_N1
        target_MD = weighted_ND[1::2].index_add(0, nearest_S[merged_R], weighted_ND[0::2][merged_R])
        sizes_M1 = sizes_N1[1::2].index_add(0, nearest_S[merged_R], sizes_N1[0::2][merged_R])
        x_ND = torch.cat((x_ND[0::2][stay_U], target_MD / sizes_M1))
        sizes_N1 = torch.cat((sizes_N1[0::2][stay_U], sizes_M1))
    return x_ND[None]


def blocked_tome_rounds(x_1ND: Tensor, keep: float) -> Tensor:
    """The same rounds by `vtm.bipartite_plan`, which never holds the matrix."""
    left = max(1, -(-round(x_1ND.shape[1] * keep * 1e6) // 10**6))
    sizes_1N1 = x_1ND.new_ones(1, x_1ND.shape[1], 1)
    while x_1ND.shape[1] > left:
        plan = bipartite_plan(x_1ND, min(x_1ND.shape[1] // 2, x_1ND.shape[1] - left))
        x_1ND, sizes_1N1 = plan.weighted_mean(x_1ND, sizes_1N1[..., 0]), plan.sum(sizes_1N1)
    return x_1ND


def dense_merge(x_1ND: Tensor, partition_factor: int) -> Tensor:
    """Equations 1 to 4 with one matrix of all similarities."""
    x_ND = x_1ND[0]
    is_source_N = torch.arange(len(x_ND), device=x_ND.device) % partition_factor != 0
    unit_ND = F.normalize(x_ND, dim=1)
    nearest_S = (unit_ND[is_source_N] @ unit_ND[~is_source_N].T).argmax(dim=1)
    total_MD = x_ND[~is_source_N].index_add(0, nearest_S, x_ND[is_source_N])
    return (total_MD / (1 + nearest_S.bincount(minlength=len(total_MD)))[:, None])[None]


ROWS = (
    "tree",
    *(strategy for strategy in STRATEGIES if strategy != "none"),
    "dense matrix",
    "tome rounds",
    "vtm tome rounds",
)
