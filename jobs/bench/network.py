"""`vtm bench network`: the paper's three-block network with merging against its baseline, throughput and peak memory.

Every row runs in a process of its own, one after the other, on the same random tokens; peak_bytes holds weights, input
and all that the forward pass allocates, and nothing of Python's or torch's own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

import torch
from torch import Tensor

from jobs.bench.row_process import in_own_process, machine_name, peak_bytes, wait_for
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; the defaults are the paper's shape."""
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--patches", type=int, nargs=2, default=(16, 16), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--width", type=int, default=1024, help="channels of the encoder's tokens")
    parser.add_argument("--widths", type=int, nargs="+", default=(512, 256, 256), help="channels after each block")
    parser.add_argument("--windows", type=int, nargs="+", default=(6, 30, 60), help="frames of each block's window")
    parser.add_argument("--partition-factor", type=int, default=6, help="one target in this many tokens")
    parser.add_argument("--merge-share", type=float, default=0.8, help="R as a share of the sources")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-width", type=int, default=64)
    parser.add_argument("--strategies", nargs="+", choices=get_args(NetworkStrategy), default=get_args(NetworkStrategy))
    parser.add_argument("--attention", nargs="+", choices=get_args(AttentionKernel), default=get_args(AttentionKernel))
    parser.add_argument("--batch", type=int, default=1, help="clips together")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed passes a row, after one untimed; the median counts"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    rows: list[dict[str, Any]] = []
    for attention in args.attention:
        rows += _rows(args, attention)
    machine = f"{machine_name(args.device, args.threads)}, {args.dtype}"
    if args.json:
        print(json.dumps({"machine": machine, "rows": rows}))
        return 0
    print(f"{args.frames} frames of {args.patches[0]} x {args.patches[1]} tokens, width {args.width}: {machine}")
    for row in rows:
        print(_line(row))
    return 0


def _line(row: dict[str, Any]) -> str:
    ratios = "no baseline in this run"
    if "times_baseline" in row:
        ratios = f"{row['times_baseline']:6.2f} x, {row['memory_saved_share']:+.0%} memory saved"
    stages = ", ".join(f"{stage} {row[f'{stage}_s'] * 1e3:.0f}" for stage in STAGES)
    return (
        f"{row['attention']:6} {row['name']:10} {row['clips_per_s']:8.3f} clips/s {row['peak_bytes'] / 1e6:8.0f} MB  "
        f"{ratios}  ms: {stages}"
    )


def _rows(args: argparse.Namespace, attention: AttentionKernel) -> list[dict[str, Any]]:
    requests = [_request(args, strategy, attention) for strategy in args.strategies]
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
        in_width=args.width,
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
    grid = (args.frames, args.patches[0], args.patches[1])
    return RowRequest(
        config=config,
        grid=grid,
        batch=args.batch,
        repeats=args.repeats,
        device=args.device,
        dtype=args.dtype,
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
    seconds = [_seconds(network, patches, request.grid, motion) for _ in range(request.repeats + 1)][1:]
    peak = peak_bytes(device) - before_bytes
    return {
        "name": request.name,
        "attention": request.config.attention,
        "clips_per_s": request.batch / statistics.median(seconds),
        "peak_bytes": peak,
        "multiply_adds": multiply_adds(request.config, request.grid),
        **_stage_seconds(network, patches, request.grid, motion),
    }


def _seconds(network: VideoTokenMerging, patches: Tensor, grid: Grid, motion: Tensor | None) -> float:
    wait_for(patches.device)
    start_s = time.perf_counter()
    network(patches, grid, motion=motion)
    wait_for(patches.device)
    return time.perf_counter() - start_s


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench on its own."""
    parser = argparse.ArgumentParser(prog="vtm bench network", description=__doc__.splitlines()[0])
    add_arguments(parser)
    return run(parser.parse_args(argv))
