"""`vtm extract`: videos in, token shards out."""

from __future__ import annotations

import argparse
import json
import sys

from jobs.options import add_config_option, add_execution_options, add_recipe_options, settings_of
from jobs.progress import Progress
from pipeline.errors import SettingsError

PARTIAL = 3
SUMMARY = "summary.json"
"""What the latest run that made clips took; `vtm report` shows it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Inputs, output and every setting."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="video, folder, glob, list file, or address such as s3://bucket/prefix",
    )
    parser.add_argument("--out", metavar="DIR", help="run folder or s3://bucket/prefix; an existing run is resumed")
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--accept-failures", action="store_true", help="exit with 0 even if some input failed")
    add_recipe_options(parser)
    add_execution_options(parser)


def run(options: argparse.Namespace) -> int:
    """Extract, and say what it took."""
    inputs, out, recipe, execution = settings_of(options)
    if out is None:
        raise SettingsError("--out DIR is missing: name a folder for the run")
    if not inputs:
        raise SettingsError("no input was given: name a video, a folder, a glob, a list file or an address")
    # After the checks, because this imports torch.
    from pipeline.run import extract
    from pipeline.store import open_store

    with Progress(quiet=options.quiet) as progress:
        summary = extract(inputs, out, recipe, execution, progress)
    if summary.tally.clips:
        open_store(out).put(SUMMARY, json.dumps(summary.to_json(), indent=1, default=str).encode())
    if options.json:
        print(json.dumps(summary.to_json(), indent=1, default=str))
    else:
        print("\n".join(summary.lines()))
    for failed in summary.failures if options.json else ():
        print(f"vtm: {failed.uri} [{failed.failure}] {failed.message}", file=sys.stderr)
    return 0 if options.accept_failures and summary.exit_code == PARTIAL else summary.exit_code
