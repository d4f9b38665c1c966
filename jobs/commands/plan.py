"""`vtm plan`: what a run would take, from headers and sample tables; the longest video first."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.estimate import Estimate, estimate, token_count
from jobs.options import add_config_option, add_recipe_options, settings_of
from jobs.rates import Rates, load_rates, measure_rates
from jobs.table import print_table
from pipeline.counted import counted
from pipeline.errors import DecodeError, SettingsError
from pipeline.settings import Recipe

MOST_ROWS = 40
log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Inputs and the recipe; nothing is written."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="video, folder, glob, list file, or address such as s3://bucket/prefix",
    )
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with all videos")
    parser.add_argument("--rates", type=Path, metavar="FILE", help="speeds, as `vtm bench pipeline --json` prints them")
    parser.add_argument(
        "--no-calibration", action="store_true", help="without --rates, do not measure speed on the first video"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="scan processes (default: one per core)")
    add_recipe_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table; exit code 3 when some input cannot be read."""
    inputs, _, recipe, execution = settings_of(options)
    if not inputs:
        raise SettingsError("no input was given: name a video, a folder, a glob, a list file or an address")
    rates = None if options.rates is None else load_rates(options.rates)
    # After the checks, because this imports torch.
    from pipeline.encode.describe import describe_encoder
    from pipeline.encode.devices import this_device

    began_s = time.perf_counter()
    count = token_count(recipe, *describe_encoder(recipe, this_device("cpu")))
    rows = estimate(inputs, count, execution.workers)
    log.debug("scanned %s in %.1f s", counted(len(rows), "input"), time.perf_counter() - began_s)
    if rates is None and not options.no_calibration:
        rates = _calibrated(rows, recipe)
    totals = totals_of(rows, rates)
    if options.json:
        facts = {"videos": [asdict(row) for row in rows], "totals": totals}
        print(json.dumps(facts | {"rates": None if rates is None else asdict(rates)}, indent=1))
    else:
        _print_rows(rows)
        print("\n".join(lines(totals, rates, recipe)))
    return 3 if any(row.problem for row in rows) else 0


def _calibrated(rows: Sequence[Estimate], recipe: Recipe) -> Rates | None:
    """Rates of this machine, on the shortest of the videos; None where none can be decoded."""
    readable = sorted((row for row in rows if not row.problem), key=lambda row: row.duration_s)
    # A short first clip says less: of the videos with a full clip, the shortest.
    full = [row for row in readable if row.clips > 1] or readable[-1:]
    try:
        return measure_rates(full[0].uri, recipe) if full else None
    except DecodeError as error:
        log.warning("no calibration: %s", error)
        return None


def totals_of(rows: Sequence[Estimate], rates: Rates | None) -> dict[str, Any]:
    """Sums over all videos, and the hours that they take."""
    duration_s, frames = sum(row.duration_s for row in rows), sum(row.frames for row in rows)
    totals: dict[str, Any] = {
        "videos": sum(not row.problem for row in rows),
        "unreadable": sum(bool(row.problem) for row in rows),
        "duration_s": duration_s,
        "clips": sum(row.clips for row in rows),
        "frames": frames,
        "tokens": sum(row.tokens for row in rows),
        "size_bytes": sum(row.size_bytes for row in rows),
    }
    if rates is not None:
        totals["encoder_h"] = frames / rates.encode_frames_per_s / 3600
        totals["decode_core_h"] = duration_s * rates.decode_core_s_per_video_s / 3600
    return totals


def lines(totals: dict[str, Any], rates: Rates | None, recipe: Recipe) -> list[str]:
    """The totals for people."""
    about = "about " if recipe.fidelity is not None else ""
    text = [
        f"{counted(totals['videos'], 'video')}, {totals['duration_s'] / 3600:.2f} h, "
        f"{counted(totals['clips'], 'clip')}, {counted(totals['frames'], 'frame')} to encode, "
        f"{about}{counted(totals['tokens'], 'token')}, {about}"
        f"{totals['size_bytes'] / 1e6:.1f} MB"
        + (f", {totals['unreadable']} unreadable" if totals["unreadable"] else "")
    ]
    if rates is None:
        return text
    unit = "GPU hours" if rates.device == "cuda" else f"hours of {counted(rates.cores, 'core')}"
    text.append(
        f"encoding {totals['encoder_h']:.2f} {unit} at {rates.encode_frames_per_s:.0f} frames/s; "
        f"decoding {totals['decode_core_h']:.2f} core hours ({rates.source})"
    )
    if rates.device == "cuda" and totals["encoder_h"]:
        text.append(f"{totals['decode_core_h'] / totals['encoder_h']:.1f} cores decode as fast as one GPU encodes")
    elif rates.device == "cpu":
        text.append("for GPU hours, run `vtm bench pipeline VIDEO --json > rates.json` on a GPU and give --rates")
    return text


def _print_rows(rows: Sequence[Estimate]) -> None:
    shown = [*rows[:MOST_ROWS], *[row for row in rows[MOST_ROWS:] if row.problem][:MOST_ROWS]]
    print_table(
        ["video", "codec", "length s", "clips", "frames", "tokens", "MB", ""],
        [
            [
                row.uri,
                row.codec,
                f"{row.duration_s:.1f}",
                row.clips,
                row.frames,
                row.tokens,
                f"{row.size_bytes / 1e6:.1f}",
                row.problem,
            ]
            for row in shown
        ],
    )
    if len(shown) < len(rows):
        print(f"and {len(rows) - len(shown)} more (all with --json)")
