"""Options that several benchmarks have, each declared once."""

from __future__ import annotations

import argparse
from fractions import Fraction

import torch

from jobs.bench.numbers import count
from pipeline.encode.devices import resolve_compute_dtype, this_device
from vtm import Encoder, load_encoder


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_threads_option(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    """`--threads`: by default as many as torch takes."""
    threads = torch.get_num_threads() if default is None else default
    parser.add_argument("--threads", type=count, default=threads, help="threads of the CPU's arithmetic")


def add_repeats_option(parser: argparse.ArgumentParser, default: int, counts: str) -> None:
    """`--repeats`: how often each row is timed.

    Args:
        parser: gets the option.
        default: how often.
        counts: what becomes of them, such as `the median counts`.
    """
    parser.add_argument("--repeats", type=count, default=default, help=f"how often each row is timed; {counts}")


def add_grid_options(parser: argparse.ArgumentParser) -> None:
    """`--clip-frames` and `--patches`: the grid of a clip that is made up."""
    parser.add_argument("--clip-frames", type=count, default=60, help="frames sampled per clip")
    parser.add_argument(
        "--patches",
        type=count,
        nargs=2,
        default=(16, 16),
        metavar=("ROWS", "COLUMNS"),
        help="rows and columns of a frame's patch grid",
    )


def add_encoder_options(parser: argparse.ArgumentParser, which: str = "") -> None:
    """`--encoder` and `--layer`; `which` encoders are meant, such as `with patches of 14 pixels`."""
    parser.add_argument("--encoder", required=True, metavar="DIR|ID", help=f"folder or Hugging Face id {which}".strip())
    parser.add_argument("--layer", type=int, default=9, help="block whose output is taken; -1 is the last")


def add_clip_options(parser: argparse.ArgumentParser, *, clips: int | None, which: str) -> None:
    """Videos and how they are cut: `--fps`, `--clip-frames` and `--clips`.

    Args:
        parser: gets the options.
        clips: how many by default; None for all.
        which: what they are, such as `full clips of each video`.
    """
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="files or addresses")
    parser.add_argument("--fps", type=Fraction, default=Fraction(1), help="frames sampled per second of video")
    parser.add_argument("--clip-frames", type=count, default=60, help="frames sampled per clip")
    every = "" if clips is not None else " (default: all)"
    parser.add_argument("--clips", type=count, default=clips, help=f"{which}, from its start{every}")


def encoder_of(args: argparse.Namespace) -> Encoder:
    """The encoder that the options name, on `--device` in the arithmetic that suits it."""
    dtype = getattr(torch, resolve_compute_dtype("auto", this_device(args.device)))
    return load_encoder(args.encoder, layer=args.layer, dtype=dtype, device=args.device)
