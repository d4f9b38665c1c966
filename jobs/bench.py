"""`vtm bench NAME`: measurements, with peers in the same run; each lives in a file of its own."""

from __future__ import annotations

import argparse
import importlib

BENCHES = {
    "decode": "frames a second of sparse exact decoding, beside ffmpeg and other decoders",
    "encoder": "frames a second and share of the machine's matrix-product rate, beside transformers",
    "merge": "time and memory of merging, beside ToMe's rounds and a dense similarity matrix",
    "fidelity": "how well merged tokens stand for their sources, by strategy and share kept",
    "network": "the paper's network with and without merging",
    "learning": "learnable merging against fixed strategies on planted scenes",
    "pipeline": "a whole extraction, beside a plain script that decodes and then encodes",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command a benchmark; only the one that is called is imported."""
    names = parser.add_subparsers(required=True, metavar="NAME")
    for name, purpose in BENCHES.items():
        bench = names.add_parser(name, help=purpose, description=purpose, add_help=False)
        bench.add_argument("rest", nargs=argparse.REMAINDER)
        bench.set_defaults(bench=name)


def run(options: argparse.Namespace) -> int:
    """Parse the benchmark's own options, then measure."""
    module = importlib.import_module(f"jobs.bench_{options.bench}")
    parser = argparse.ArgumentParser(prog=f"vtm bench {options.bench}", description=BENCHES[options.bench])
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(options.rest)))
