"""`vtm bench search`: whether search finds what it should, and how long it takes.

Three kinds of rows, for what is given. `frames`: frames cut from the videos of a run at random times, at another size
and as JPEG; how many find their clip, and their time to a second, by sampled frames alone and with a look into the
video. `pictures`: labelled pictures, each a clip of one frame whose tokens are cut to a share; how many of the nearest
have the label, by pooled vectors and by MaxSim. `clips`: seconds to load a made-up cache and to search it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jobs.bench.machine import machine_name
from jobs.bench.numbers import count, share
from jobs.bench.options import add_json_option
from jobs.bench.output import show
from jobs.bench.search_clips import search_many
from jobs.bench.search_frames import find_frames
from jobs.bench.search_pictures import label_pictures
from pipeline.errors import SettingsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--run", metavar="DIR", help="run folder: cut frames from its videos and look for them")
    add("--queries", type=count, default=50, help="frames to look for")
    add("--pictures", type=Path, metavar="FOLDER", help="folder of labelled pictures")
    add("--encoder", help="folder or Hugging Face id, for --pictures")
    add("--layer", type=int, default=-1, help="block whose output is taken, for --pictures; -1 is the last")
    add("--keep", type=share, default=0.02, help="share of a picture's tokens left, for --pictures")
    add("--clips", type=count, metavar="N", help="make up a cache of so many clips and search it")
    add("--index", action="store_true", help="search the made-up cache by an approximate index too (extra: faiss)")
    add("--tokens-per-clip", type=count, default=308, help="tokens of a made-up clip")
    add("--dim", type=count, default=384, help="channels of a made-up token")
    add("--seed", type=int, default=0, help="of the choice of frames, and of made-up tokens")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for and print; returns the exit code."""
    rows: list[dict[str, Any]] = []
    if not (args.run or args.pictures or args.clips):
        raise SettingsError(
            "there is nothing to measure: give --run DIR, --pictures FOLDER with --encoder, or --clips N"
        )
    if args.pictures and not args.encoder:
        raise SettingsError("--pictures FOLDER needs --encoder DIR|ID")
    if args.run:
        rows.append(find_frames(args.run, args.queries, args.seed))
    if args.pictures:
        rows += label_pictures(args.pictures, args.encoder, args.layer, args.keep)
    if args.clips:
        rows.append(search_many(args.clips, args.tokens_per_clip, args.dim, args.seed, by_index=args.index))
    show(rows, machine=machine_name(), as_json=args.json)
    return 0
