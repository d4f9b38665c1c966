"""`vtm repair`: make again what verification finds wrong, and only that."""

from __future__ import annotations

import argparse
import json
import sys

from jobs.commands.verify import MOST_PROBLEMS
from jobs.options import add_config_option, add_execution_options, execution_of
from jobs.progress import Progress
from pipeline.counted import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run and how to go about it."""
    parser.add_argument("out", metavar="RUN", help="run folder, or its address")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config_option(parser)
    add_execution_options(parser)


def run(options: argparse.Namespace) -> int:
    """Repair, and print what was wrong; exit code 0 when nothing is left, else 1."""
    from pipeline.repair import repair

    execution = execution_of(options)
    with Progress(quiet=options.quiet) as progress:
        done = repair(options.out, execution, progress)
    made = 0 if done.summary is None else done.summary.tally.clips
    if options.json:
        facts = {"found": done.before.problems, "left": done.after.problems, "clips_made": made}
        print(json.dumps(facts | {"sound": done.after.is_sound}, indent=1))
        return 0 if done.after.is_sound else 1
    for problem in done.before.problems[:MOST_PROBLEMS]:
        print(f"found: {problem}")
    for problem in done.after.problems[:MOST_PROBLEMS]:
        print(f"left: {problem}", file=sys.stderr)
    print(
        f"{options.out}: {counted(len(done.before.problems), 'problem')} found, {len(done.after.problems)} left, "
        f"{counted(made, 'clip')} made"
    )
    return 0 if done.after.is_sound else 1
