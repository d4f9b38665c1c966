"""`vtm bench network`: the paper's three-block network with merging against its baseline, throughput and peak memory.

Every row runs in a process of its own, one after the other, on the same random tokens; peak_bytes holds weights, input
and all that the forward pass allocates, and nothing of Python's or torch's own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, get_args

import torch
from torch import Tensor

from jobs.bench.machine import machine_name
from jobs.bench.memory import peak_bytes
from jobs.bench.numbers import count
from jobs.bench.options import add_grid_options, add_json_option, add_repeats_option, add_threads_option
from jobs.bench.output import Columns, show
from jobs.bench.own_process import in_own_process
from jobs.bench.timing import repeated_s, wait_for
from jobs.training.device import add_device_option
from pipeline.counted import counted
from vtm.network import NetworkConfig, VideoTokenMerging
from vtm.network.block import VideoBlock
from vtm.network.config import AttentionKernel, NetworkStrategy
from vtm.network.weighted import WeightedBlock
from vtm.plan import Grid

STAGES = ("projection", "attention", "merge", "output")
"""Within a block: LayerNorm and Q, K, V; equation 8; deciding on a merge and averaging; Linear and GELU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRequest:
    """What one row measures."""

    config: NetworkConfig
    grid: Grid
    batch: int
    repeats: int
    device: str
    dtype: str
    threads: int

    @property
    def name(self) -> str:
        """The row's name: the strategy, or `baseline`."""
        return "baseline" if self.config.strategy == "none" else self.config.strategy


COLUMNS: Columns = {
    "attention": lambda row: row["attention"],
    "": lambda row: row["name"],
    "clips/s": lambda row: f"{row['clips_per_s']:.3f}",
    "peak MB": lambda row: f"{row['peak_bytes'] / 1e6:.0f}",
    "x baseline": lambda row: f"{row['times_baseline']:.2f}",
    "memory saved": lambda row: f"{row['memory_saved_share']:+.0%}",
    "projection ms": lambda row: f"{row['projection_s'] * 1e3:.0f}",
    "attention ms": lambda row: f"{row['attention_s'] * 1e3:.0f}",
    "merge ms": lambda row: f"{row['merge_s'] * 1e3:.0f}",
    "output ms": lambda row: f"{row['output_s'] * 1e3:.0f}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; the defaults are the paper's shape."""
    add_grid_options(parser)
    parser.add_argument("--dim", type=count, default=1024, help="channels of the encoder's tokens")
    parser.add_argument("--widths", type=count, nargs="+", default=(512, 256, 256), help="channels after each block")
    parser.add_argument("--windows", type=count, nargs="+", default=(6, 30, 60), help="frames of each block's window")
    parser.add_argument("--partition-factor", type=count, default=6, help="γ: one target in this many tokens")
    parser.add_argument("--merge-share", type=float, default=0.8, help="R as a share of the sources")
    parser.add_argument("--heads", type=count, default=4, help="attention heads of each block")
    parser.add_argument("--head-width", type=count, default=64, help="channels of each head")
    strategies, kernels = get_args(NetworkStrategy), get_args(AttentionKernel)
    parser.add_argument("--strategy", nargs="+", choices=strategies, default=strategies, help="networks to measure")
    parser.add_argument("--attention", nargs="+", choices=kernels, default=kernels, help="attention kernels to measure")
    parser.add_argument("--batch-clips", type=count, default=1, help="clips per batch")
    add_repeats_option(parser, 3, "after one untimed; the median counts")
    add_device_option(parser)
    parser.add_argument(
        "--compute-dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="data type of the arithmetic",
    )
    add_threads_option(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    rows: list[dict[str, Any]] = []
    for attention in args.attention:
        rows += _rows(args, attention)
    show(
        rows,
        machine=machine_name(args.device, args.threads, args.compute_dtype),
        as_json=args.json,
        columns=COLUMNS,
        title=f"{counted(args.clip_frames, 'frame')} of {args.patches[0]} x {args.patches[1]} tokens, width {args.dim}",
    )
    return 0


def _rows(args: argparse.Namespace, attention: AttentionKernel) -> list[dict[str, Any]]:
    requests = [_request(args, strategy, attention) for strategy in args.strategy]
    rows = [in_own_process(measure_row, request) for request in requests]
    baseline = next((row for row in rows if row["name"] == "baseline"), None)
    if baseline is None:
        return rows
    for row in rows:
        row["times_baseline"] = row["clips_per_s"] / baseline["clips_per_s"]
        row["memory_saved_share"] = 1 - row["peak_bytes"] / baseline["peak_bytes"]
    return rows


def _request(args: argparse.Namespace, strategy: NetworkStrategy, attention: AttentionKernel) -> RowRequest:
    config = NetworkConfig(
        in_width=args.dim,
        outputs=10,
        strategy=strategy,
        widths=tuple(args.widths),
        windows_frames=tuple(args.windows),
        partition_factor=args.partition_factor,
        merge_share=args.merge_share,
        heads=args.heads,
        head_width=args.head_width,
        attention=attention,
    )
    grid = (args.clip_frames, args.patches[0], args.patches[1])
    return RowRequest(
        config=config,
        grid=grid,
        batch=args.batch_clips,
        repeats=args.repeats,
        device=args.device,
        dtype=args.compute_dtype,
        threads=args.threads,
    )


@torch.inference_mode()
def measure_row(request: RowRequest) -> dict[str, Any]:
    """Time one network; what a child process does.

    Returns:
        The row: name, attention, clips_per_s, peak_bytes, multiply_adds, and seconds a batch by stage; `run` adds the
        ratios to the baseline of the same run.
    """
    torch.set_num_threads(request.threads)
    torch.manual_seed(0)
    device = torch.device(request.device)
    before_bytes = peak_bytes(device)
    network = VideoTokenMerging(request.config).to(device, getattr(torch, request.dtype)).eval()
    frames, rows, columns = request.grid
    tokens = frames * rows * columns
    patches = torch.randn(request.batch, tokens, request.config.in_width, dtype=torch.float32)
    patches = patches.to(device, getattr(torch, request.dtype))
    motion = patches[..., 0].float().abs() if request.config.strategy == "motion" else None
    forward = partial(network, patches, request.grid, motion=motion)
    forward()
    seconds = repeated_s(forward, request.repeats, device)
    peak = peak_bytes(device) - before_bytes
    return {
        "name": request.name,
        "attention": request.config.attention,
        "clips_per_s": request.batch / statistics.median(seconds),
        "peak_bytes": peak,
        "multiply_adds": multiply_adds(request.config, request.grid),
        **_stage_seconds(network, patches, request.grid, motion),
    }


def _stage_seconds(network: VideoTokenMerging, patches: Tensor, grid: Grid, motion: Tensor | None) -> dict[str, float]:
    """Seconds of one more pass by stage, from marks at the borders of each block's modules."""
    marks: list[tuple[str, float]] = []

    def mark(stage: str) -> None:
        wait_for(patches.device)
        marks.append((stage, time.perf_counter()))

    for block in network.blocks:
        assert isinstance(block, VideoBlock | WeightedBlock)
        block.register_forward_pre_hook(lambda *_: mark(""))
        if isinstance(block, WeightedBlock):
            block.to_qkv.register_forward_pre_hook(lambda *_: mark("merge"))
        block.to_qkv.register_forward_hook(lambda *_: mark("projection"))
        block.dropout.register_forward_pre_hook(lambda *_: mark("attention"))
        block.to_out.register_forward_pre_hook(lambda *_: mark("merge"))
        block.register_forward_hook(lambda *_: mark("output"))
    network(patches, grid, motion=motion)
    totals = dict.fromkeys(STAGES, 0.0)
    for (_, start_s), (stage, end_s) in pairwise(marks):
        if stage:
            totals[stage] += end_s - start_s
    return {f"{stage}_s": value for stage, value in totals.items()}


def multiply_adds(config: NetworkConfig, grid: Grid) -> int:
    """Multiply-adds of one clip in projections, attention, matching and output layers; softmax and means aside."""
    frames, rows, columns = grid
    total, width, tokens, width_att = 0, config.in_width, frames * rows * columns, config.attention_width
    for frames_i, width_out in zip(config.windows_frames, config.widths, strict=True):
        windows = max(1, frames // frames_i)
        before = inside = tokens // windows
        if config.strategy != "none":
            targets = -(-inside // config.partition_factor)
            sources = inside - targets
            inside -= int(config.merge_share * sources)
            compared = width if config.strategy == "weighted" else width_att
            total += windows * sources * targets * compared
        # `weighted` merges before its attention, the others after it.
        attended = inside if config.strategy == "weighted" else before
        total += windows * attended * (width * 3 + 2 * attended) * width_att
        tokens = windows * inside
        total += tokens * width_att * width_out
        width = width_out
    return total
