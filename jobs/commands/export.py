"""`vtm export`: the cache in a reader's own layout."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from jobs.cut_options import add_cut_options
from pipeline.counted import counted
from pipeline.export import FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the format, and what it may be told."""
    parser.add_argument("run_folder", metavar="RUN", help="run folder, or its address")
    parser.add_argument("--to", required=True, choices=FORMATS, help="; ".join(f"{k}: {v}" for k, v in FORMATS.items()))
    parser.add_argument("--out", required=True, metavar="FOLDER", help="new or empty folder to write to")
    parser.add_argument(
        "--step-s", type=float, metavar="S", help="seconds per row (default: moment-detr 2, actionformer 1)"
    )
    parser.add_argument(
        "--spread",
        action="store_true",
        help="write one row per source patch: the token that represents it (vllm-ec, npy)",
    )
    parser.add_argument(
        "--name-by", default="id", choices=("id", "file"), help="name files by video id or by file name"
    )
    parser.add_argument("--collection", default="clips", help="name of the table or collection")
    parser.add_argument("--url", help="address of a Qdrant server. By default a local collection is written")
    add_cut_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Export, and say what was written."""
    from pipeline.export.formats import export
    from pipeline.export.target import ExportOptions

    began_s = time.perf_counter()
    exported = export(
        options.run_folder,
        options.to,
        Path(options.out),
        ExportOptions(
            step_s=options.step_s,
            spread=options.spread,
            name_by=options.name_by,
            collection=options.collection,
            url=options.url,
        ),
        keep=options.keep,
        tokens=options.tokens_per_clip,
        fidelity=options.fidelity,
        max_loss=options.max_loss,
        lloyd_steps=options.lloyd,
    )
    wall_s = time.perf_counter() - began_s
    if options.json:
        print(json.dumps(asdict(exported) | {"out": options.out, "wall_s": wall_s}, indent=1))
        return 0
    made = f"{counted(exported.items, 'item')}, {counted(exported.rows, 'vector')}"
    print(f"{options.out}: {made} for {exported.format} in {wall_s:.1f} s")
    for note in exported.notes:
        print(f"note: {note}")
    return 0
