"""`vtm status`: the progress of a run, from its run folder, while it runs elsewhere."""

from __future__ import annotations

import argparse
import json

from pipeline.counted import counted
from pipeline.status import RunStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run."""
    parser.add_argument("out", metavar="RUN", help="run folder, or its address")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print where the run is."""
    from pipeline.status import status

    found = status(options.out)
    print(json.dumps(found.to_json(), indent=1) if options.json else "\n".join(lines(options.out, found)))
    return 0


def lines(out: str, found: RunStatus) -> list[str]:
    """For people."""
    rate = found.clips_per_s
    pace = "" if rate is None else f", {rate * 60:.1f} clips a minute"
    eta = "" if found.eta_s is None else f", about {_duration(found.eta_s)} to go"
    text = [
        f"{out}: {found.owner or 'not running'}",
        f"{found.inputs_scanned} of {counted(found.inputs, 'input')} scanned; "
        f"{found.clips_done} of {counted(found.clips, 'clip')}, "
        f"{found.done_s / 3600:.2f} of {found.planned_s / 3600:.2f} h{pace}{eta}",
    ]
    if found.failures:
        text.append("failures: " + ", ".join(f"{count} {name}" for name, count in sorted(found.failures.items())))
    return text


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
