"""`vtm bench NAME`: measurements, with peers in the same run; each lives in a file of its own."""

from __future__ import annotations

import argparse
import importlib

from jobs.parser import Parser

BENCHES = {
    "decode": "frames a second of sparse exact decoding, beside ffmpeg and other decoders",
    "encoder": "frames a second and share of the machine's matrix-product rate, beside transformers",
    "reuse": "what not encoding unchanged patches again gains, and how far its tokens are from encoding everything",
    "merge": "time and memory of merging, beside ToMe's rounds and a dense similarity matrix",
    "fidelity": "how well merged tokens represent their sources, by strategy and share kept",
    "tree": "what merge trees promise: fidelity told, guaranteed, and over whole videos",
    "network": "the paper's network with and without merging",
    "learning": "learnable merging against fixed strategies on planted scenes",
    "size_bias": "what merged tokens change in a frozen model's output, with and without the log-size bias",
    "pipeline": "a whole extraction, beside a plain script that decodes and then encodes",
    "plan": "planning and resuming a run of many videos, without a pixel",
    "search": "whether search finds frames and equal scenes, and how long it takes among many clips",
    "storage": "what an hour of video takes in each dtype, what that loses, and what zstd would save",
    "loader": "clips and bytes a second of TokenStream, beside pyarrow reading the same bytes",
    "gpu": "everything that is to be known of a GPU, in one command; see also `make gpu`",
    "engine": "the scheduler on a simulated cluster: how busy it keeps it, and what a decision costs",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's name, and what its own parser takes."""
    parser.add_argument("name", choices=sorted(BENCHES), help="; ".join(f"{k}: {v}" for k, v in BENCHES.items()))
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="`vtm bench NAME --help` lists them")


def run(options: argparse.Namespace) -> int:
    """Parse the benchmark's own options, then measure."""
    module = importlib.import_module(f"jobs.bench.{options.name}")
    text = BENCHES[options.name]
    parser = Parser(f"vtm bench {options.name}", text[0].upper() + text[1:] + ".")
    module.add_arguments(parser)
    return int(module.run(parser.parse(options.rest)))
