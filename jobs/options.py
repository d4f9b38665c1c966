"""The settings as command-line options: one name each, the same as in a TOML recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.errors import SettingsError
from pipeline.settings import AMOUNTS, Execution, Recipe, build, load_toml

REUSE_HELP = (
    "do not encode a patch again while its pixels differ from those last encoded by at most LEVELS of 255 on average "
    "(every patch is encoded)"
)


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Options that decide the bytes; defaults live in `Recipe`, so an option left out stays out."""
    group = parser.add_argument_group("recipe")
    add = group.add_argument
    add("--encoder", metavar="ID|DIR", help=f"Hugging Face id or local folder (default {Recipe().encoder})")
    add("--revision", help="branch, tag or commit of a Hugging Face id")
    add("--layer", type=int, help="output block: -1 last (default), -2 last but one, 9 the ninth")
    add("--encoder-keep", type=float, metavar="SHARE", help="share of a frame's patches left inside the encoder (1)")
    add("--reuse-levels", "--reuse", type=float, metavar="LEVELS", help=REUSE_HELP)
    add("--strategy", help=f"how merge targets are chosen (default {Recipe().strategy})")
    add("--keep", type=float, metavar="SHARE", help="share of a clip's tokens to keep (0.1)")
    add("--tokens-per-clip", type=int, metavar="M", help="tokens to keep per clip, instead of a share")
    add("--fidelity", type=float, metavar="F", help="keep as few as have this mean cosine in every clip (tree)")
    add("--weights", help="what patches count in the tree: uniform (default), saliency or motion")
    add("--max-gap-frames", type=int, metavar="T", help="most frames between what the tree merges (any number)")
    add("--partition-factor", type=int, metavar="GAMMA", help="every GAMMA-th token is a target, instead of a share")
    add("--merge-share", type=float, metavar="R", help="merge only this share of the sources, the most similar (1)")
    add("--vtm", metavar="DIR", help="trained scorer or network, for --strategy learnable")
    add("--fps", metavar="RATE", help="grid instants a second, such as 1, 0.5 or 30000/1001 (1)")
    add("--clip-frames", type=int, metavar="T", help="grid instants a clip (60)")
    add("--frames", help="exact (default: what is on display at each instant) or key (nearest key frame, far cheaper)")
    add("--tonemap", action="store_true", default=None, help="bring HLG and PQ video to the standard dynamic range")
    add("--deinterlace", action="store_true", default=None, help="take one field of interlaced pictures")
    add("--alpha-background", metavar="RRGGBB", help="colour under transparent pictures (transparency is left out)")
    add("--resize", help="torch (default, fast, within a level of Pillow) or pillow (bit for bit)")
    add("--embedding", help="fill the column embedding: auto (default: after the last block), always or never")
    add("--dtype", help="of the tokens: float16 (default), bfloat16, float32, int8")
    add("--compute-dtype", help="of the arithmetic: auto (default), float32, bfloat16, float16")
    add("--batch-frames", type=int, metavar="B", help="frames the encoder takes at once (20)")
    add("--compile", action="store_true", default=None, help="run the encoder through torch's compiler, on a GPU")


def add_execution_options(parser: argparse.ArgumentParser) -> None:
    """Options that change no byte."""
    group = parser.add_argument_group("execution")
    add = group.add_argument
    add("--format", metavar="LIST", help="parquet (default), webdataset, or parquet,webdataset")
    add("--engine", help="ray (default) or inline")
    add("--address", help="Ray cluster to join (default: RAY_ADDRESS, else Ray starts here)")
    add("--workers", type=int, metavar="N", help="decode workers (as many as cores)")
    add("--device", help="what encoders compute on: auto (default: GPUs where there are any), cuda or cpu")
    add("--gpus", type=int, metavar="N", help="GPUs to encode on (all there are; 0: none)")
    add("--gpu-share", type=float, metavar="SHARE", help="share of a GPU that an encoder takes (1)")
    add("--wait-for-nodes-s", type=float, metavar="S", help="wait for GPUs that an autoscaler may add (0)")
    add("--unit-clips", type=int, metavar="N", help="clips a worker decodes in one pass (2)")
    add("--shard-clips", type=int, metavar="N", help="most clips in a shard (32)")
    add(
        "--unit-timeout-s",
        type=float,
        metavar="S",
        help="stop a decode worker without progress for so long (300)",
    )
    add(
        "--encode-timeout-s",
        type=float,
        metavar="S",
        help="stop an encode worker that is at one clip for so long (600)",
    )
    add("--decode-memory-mb", type=int, metavar="MB", help="most memory that a decode worker may allocate (4096)")
    add("--retry-failed", action="store_true", default=None, help="try again what is recorded as failed")
    add("--config", metavar="FILE.toml", help="read settings from a recipe; options given here win")


def settings_of(options: argparse.Namespace) -> tuple[list[str], str | None, Recipe, Execution]:
    """Inputs, where the run lives, recipe and execution, from options over a recipe file over defaults.

    Raises:
        SettingsError: a setting is unknown or cannot be carried out.
    """
    values: dict[str, Any] = {}
    if options.config:
        values = load_toml(Path(options.config))
    given = {name: value for name, value in vars(options).items() if value is not None}
    if any(name in given for name in AMOUNTS) or given.get("strategy") == "none":
        values = {name: value for name, value in values.items() if name not in AMOUNTS}
    values |= {name: value for name, value in given.items() if name not in ("inputs", "config", "run")}
    out = values.get("out")
    try:
        inputs = list(options.inputs) or [str(text) for text in values.get("inputs", [])]
        return inputs, str(out) if out else None, build(Recipe, values), build(Execution, values)
    except TypeError as error:
        raise SettingsError(f"a setting has the wrong kind of value: {error}") from error


def execution_of(options: argparse.Namespace) -> Execution:
    """The execution of a command that has no recipe.

    Raises:
        SettingsError: a setting is unknown or cannot be carried out.
    """
    values = load_toml(Path(options.config)) if options.config else {}
    return build(Execution, values | {name: value for name, value in vars(options).items() if value is not None})
