"""`vtm budget`: what budgets of tokens keep and cost: of videos, before a run; of a run, when it is read."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.table import print_table
from pipeline.counted import counted

if TYPE_CHECKING:
    from jobs.budget.measure import Measured

RUN_KEEPS = (0.1, 0.05, 0.02, 0.01)
VIDEO_KEEPS = (0.2, 0.1, 0.05, 0.02, 0.01)
OF_VIDEOS = ("revision", "layer", "fps", "clip_frames", "dtype", "clips", "strategy", "reach", "plot")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Videos and an encoder, or a run folder; and what is to be left."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="VIDEO|RUN", help="videos, with --encoder; or one run folder of --strategy tree")
    add("--keep", type=float, nargs="+", metavar="SHARE", help="shares of the source patches to keep")
    add("--json", action="store_true", help="print JSON")
    run = parser.add_argument_group("of a run folder: the one loss at which to cut all clips")
    run.add_argument(
        "--tokens", type=int, nargs="+", metavar="M", help="total number of tokens of the run, instead of shares"
    )
    add = parser.add_argument_group("of videos: what each strategy keeps and costs").add_argument
    add("--encoder", metavar="DIR|ID", help="local folder or Hugging Face id")
    add("--revision", help="branch, tag or commit of a Hugging Face id")
    add("--layer", type=int, help="block whose output is taken (default: -1, the last)")
    add("--fps", metavar="RATE", help="frames sampled per second (default: 1)")
    add("--clip-frames", type=int, metavar="T", help="frames sampled per clip (default: 60)")
    add("--dtype", help="data type of the stored tokens: float16, bfloat16, float32 or int8 (default: float16)")
    add("--clips", type=int, metavar="N", help="clips measured in each video, spread over its length (default: 4)")
    add("--strategy", nargs="+", metavar="NAME", help="strategies to compare (default: all that need no training)")
    add("--reach", type=float, metavar="F", help="name the setting of fewest bytes whose mean cosine is at least this")
    add("--plot", type=Path, metavar="FILE.svg", help="draw mean cosine against bytes in this file")


def run(options: argparse.Namespace) -> int:
    """Measure videos where an encoder is named, else find the losses of a run."""
    from pipeline.errors import SettingsError

    if options.encoder is not None:
        if options.tokens:
            raise SettingsError("--tokens is of a run folder: leave out --encoder, or give shares with --keep")
        return _of_videos(options)
    given = [name for name in OF_VIDEOS if getattr(options, name) is not None]
    if given or len(options.inputs) > 1:
        what = f"--{given[0].replace('_', '-')} is" if given else "several inputs are"
        raise SettingsError(f"{what} for videos: name --encoder ID|DIR too, or one run folder alone")
    return _of_run(options)


def _of_run(options: argparse.Namespace) -> int:
    """Print the loss, and what it leaves and keeps, for each budget."""
    from pipeline.cache.run_budget import run_budgets

    out = options.inputs[0]
    tokens = options.tokens or ()
    keeps = options.keep or (() if tokens else RUN_KEEPS)
    budgets = run_budgets(out, keeps=keeps, tokens=tokens)
    if options.json:
        print(json.dumps({"budgets": [asdict(budget) for budget in budgets]}, indent=1))
        return 0
    print_table(
        ["share left", "tokens", "a clip", "max_loss", "mean fidelity", "worst clip", "mean at one share for all"],
        [
            [
                f"{budget.tokens / budget.sources:.2%}",
                budget.tokens,
                f"{budget.tokens / budget.clips:.0f}",
                str(np.float32(budget.max_loss)),
                f"{budget.mean_fidelity:.4f}",
                f"{budget.worst_fidelity:.4f}",
                f"{budget.same_share_fidelity:.4f}",
            ]
            for budget in budgets
        ],
    )
    print(f'read it with TokenCache("{out}", max_loss=...)')
    return 0


def _of_videos(options: argparse.Namespace) -> int:
    """Measure every setting on the same clips; print, draw, and name the cheapest that is good enough."""
    from jobs.budget.measure import cheapest
    from jobs.budget.plot import plot

    measured, lost = _measured(options)
    chosen = None if options.reach is None else cheapest(measured.rows, options.reach)
    if options.plot is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        options.plot.write_text(plot(measured, options.reach, chosen), encoding="utf-8")
    if options.json:
        facts = asdict(measured)
        if options.reach is not None:
            facts |= {"reach": options.reach, "cheapest": None if chosen is None else asdict(chosen)}
        print(json.dumps(facts, indent=1))
    else:
        _print(measured)
        if options.reach is not None:
            print(_advice(measured, options.reach))
    return 3 if lost else 0


def _measured(options: argparse.Namespace) -> tuple[Measured, int]:
    """The measurement, and how many inputs could not be read."""
    from collections.abc import Iterator

    from jobs.budget.measure import measure
    from jobs.budget.samples import Sample, Sampler
    from jobs.budget.settings import settings_of
    from pipeline.errors import InputError
    from pipeline.failed_range import FailedRange

    strategies, keeps = _strategies(options), options.keep or VIDEO_KEEPS
    recipe = _recipe(options)
    sampler = Sampler(recipe, saliency="saliency" in strategies, motion="motion" in strategies)
    lost: list[str] = []

    def readable() -> Iterator[Sample]:
        for item in sampler.samples(options.inputs, 4 if options.clips is None else options.clips):
            if isinstance(item, FailedRange):
                lost.append(item.message)
            else:
                yield item

    try:
        measured = measure(readable(), settings_of(strategies, keeps, options.reach), recipe.dtype)
    except InputError as error:
        # One line says why nothing was read.
        more = f" (and {len(lost) - 1} more that cannot be read)" if len(lost) > 1 else ""
        raise (InputError(lost[0] + more) if lost else error) from error
    for message in lost:
        print(f"vtm: {message}", file=sys.stderr)
    return measured, len(lost)


def _strategies(options: argparse.Namespace) -> tuple[str, ...]:
    from jobs.budget.settings import STRATEGIES
    from pipeline.encode.foreign.describe import is_foreign
    from pipeline.errors import SettingsError
    from vtm import EncoderError

    for name in options.strategy or ():
        if name not in STRATEGIES:
            raise SettingsError(f"--strategy {name} cannot be compared: choose from {', '.join(STRATEGIES)}")
    for share in options.keep or ():
        if not 0 < share <= 1:
            raise SettingsError(f"--keep {share} must be above 0 and at most 1: it is a share of the source patches")
    if options.reach is not None and not 0 < options.reach < 1:
        raise SettingsError(f"--reach {options.reach} must be above 0 and below 1: it is a mean cosine")
    if options.clips is not None and options.clips < 1:
        raise SettingsError(f"--clips {options.clips} must be 1 or more")
    if options.plot is not None and options.plot.suffix.lower() != ".svg":
        raise SettingsError(f"--plot {options.plot} must end in .svg")
    try:
        has_saliency = not is_foreign(options.encoder, options.revision)
    except EncoderError as error:
        raise SettingsError(str(error)) from error
    if "saliency" in (options.strategy or ()) and not has_saliency:
        raise SettingsError(f"--strategy saliency reads attention, which transformers gives none of: {options.encoder}")
    return tuple(options.strategy or (name for name in STRATEGIES if name != "saliency" or has_saliency))


def _recipe(options: argparse.Namespace) -> Any:
    from pipeline.read_settings import build
    from pipeline.settings import Recipe

    chosen = {name: getattr(options, name) for name in ("encoder", "revision", "layer", "fps", "clip_frames", "dtype")}
    return build(Recipe, chosen | {"strategy": "none", "embedding": "never"})


def _print(measured: Measured) -> None:
    print(
        f"{counted(measured.clips, 'clip')} of {counted(measured.videos, 'video')}, {measured.video_s:.0f} s; "
        f"an hour of video takes {measured.decode_s_per_hour:.0f} s to decode "
        f"and {measured.encode_s_per_hour:.0f} s to encode, and:"
    )
    print_table(
        ["setting", "tokens a clip", "mean cosine", "5th pct", "neighbours", "MB an hour", "merge s an hour"],
        [
            [
                row.options,
                f"{row.tokens_per_clip:.0f}",
                f"{row.mean_cosine:.4f}",
                f"{row.p5_cosine:.3f}",
                "-" if row.neighbour_agreement is None else f"{row.neighbour_agreement:.3f}",
                f"{row.bytes_per_hour / 1e6:.1f}",
                f"{row.merge_s_per_hour:.1f}",
            ]
            for row in measured.rows
        ],
    )


def _advice(measured: Measured, reach: float) -> str:
    from jobs.budget.measure import cheapest

    chosen = cheapest(measured.rows, reach)
    if chosen is None:
        best = max(measured.rows, key=lambda row: row.mean_cosine)
        return f"no setting reaches {reach:g}: the best, {best.options}, has {best.mean_cosine:.4f}; keep more"
    return (
        f"cheapest that reaches {reach:g}: {chosen.options} ({chosen.mean_cosine:.4f}, "
        f"{chosen.bytes_per_hour / 1e6:.1f} MB and {chosen.total_s_per_hour:.0f} s an hour of video)"
    )
