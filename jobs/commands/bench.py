"""`vtm bench NAME`: measurements, with peers in the same run; each lives in a file of its own."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

from jobs.parser import Parser, UsageError
from pipeline.nearest_name import nearest

BENCHES = {
    "decode": "frames per second of sparse exact decoding, compared with ffmpeg and other decoders",
    "encoder": "frames per second and share of the machine's matrix-product rate, compared with transformers",
    "reuse": "speed and error of reusing the encoding of unchanged patches",
    "merge": "time and memory of merging, compared with ToMe's rounds and a dense similarity matrix",
    "fidelity": "how well merged tokens represent their sources, by strategy and share kept",
    "tree": "merge trees: stated, guaranteed and measured fidelity, also of whole videos",
    "network": "the paper's network with and without merging",
    "learning": "learnable merging against fixed strategies on planted scenes",
    "size_bias": "effect of merged tokens on a frozen model's output, with and without the log-size bias",
    "pipeline": "a whole extraction on both engines, compared with a plain script that decodes, then encodes",
    "plan": "planning and resuming a run of many videos, without decoding",
    "search": "accuracy of search for frames and equal scenes, and its time among many clips",
    "storage": "size of an hour of video in each dtype, its error, and what zstd would save",
    "loader": "clips and bytes per second of TokenStream, compared with pyarrow reading the same bytes",
    "gpu": "all measurements and tests of a GPU in one command (`make gpu`)",
    "engine": "the scheduler on a simulated cluster: utilisation, and time per decision",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's name, and what its own parser takes."""
    parser.add_argument("name", metavar="NAME", help="a benchmark of the list below")
    width = max(map(len, BENCHES))
    parser.epilog = "\n".join(["benchmarks:", *(f"  {name:<{width}}  {text}" for name, text in BENCHES.items())])
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, metavar="...", help="options of the benchmark: see `vtm bench NAME --help`"
    )


def run(options: argparse.Namespace) -> int:
    """Parse the benchmark's own options, then measure."""
    parser, module = bench_parser(options.name)
    return int(module.run(parser.parse(options.rest)))


def bench_parser(name: str) -> tuple[Parser, ModuleType]:
    """The parser of one benchmark, and its module.

    Raises:
        UsageError: there is no such benchmark.
    """
    if name not in BENCHES:
        raise UsageError(
            f"bench: {name} is not a benchmark: {nearest(name, BENCHES)}choose one of {', '.join(sorted(BENCHES))}"
        )
    module = importlib.import_module(f"jobs.bench.{name}")
    text = BENCHES[name]
    parser = Parser(f"vtm bench {name}", text[0].upper() + text[1:] + ".")
    module.add_arguments(parser)
    return parser, module
