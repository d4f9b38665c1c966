"""`vtm verify`: check that a run folder is complete and undamaged."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

from pipeline.counted import counted

MOST_PROBLEMS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder."""
    parser.add_argument("out", metavar="RUN", help="run folder, or its address")
    parser.add_argument(
        "--deep",
        type=int,
        nargs="?",
        const=8,
        default=0,
        metavar="N",
        help="also extract N clips of the run again (8 without a number) and compare them byte for byte",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print what is wrong; exit code 0 when nothing is, else 1."""
    from pipeline.verify import verify

    verdict = verify(options.out)
    if options.deep:
        from pipeline.deep import compare_again

        verdict = replace(verdict, findings=(*verdict.findings, *compare_again(options.out, options.deep)))
    if options.json:
        facts = {"videos": verdict.videos, "clips": verdict.clips, "failed_ranges": verdict.failed_ranges}
        print(json.dumps(facts | {"problems": verdict.problems, "sound": verdict.is_sound}, indent=1))
        return 0 if verdict.is_sound else 1
    for problem in verdict.problems[:MOST_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(verdict.problems) > MOST_PROBLEMS:
        print(f"and {len(verdict.problems) - MOST_PROBLEMS} more", file=sys.stderr)
    state = "complete and undamaged" if verdict.is_sound else counted(len(verdict.problems), "problem")
    counts = (
        counted(verdict.videos, "video"),
        counted(verdict.clips, "clip"),
        counted(verdict.failed_ranges, "recorded failure"),
    )
    print(f"{options.out}: {state} ({', '.join(counts)})")
    return 0 if verdict.is_sound else 1
