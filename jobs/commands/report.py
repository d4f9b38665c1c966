"""`vtm report`: one HTML page, without anything beside it, that shows how a run went and what was merged."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.commands.extract import SUMMARY
from jobs.cut_options import add_cut_options, cut_of
from pipeline.counted import counted
from pipeline.errors import ExtractError, SettingsError

if TYPE_CHECKING:
    from jobs.report.clip_view import SourceTokens
    from pipeline.cache.cut import Cut
    from pipeline.cache.preview import Preview
    from pipeline.shards.scan import ClipFacts

VERIFY_BYTES = 1 << 30
"""A run up to this size is verified by the report itself; a larger one would be read whole."""
log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and how much to show."""
    add = parser.add_argument
    add("out", metavar="RUN", help="run folder, or its address")
    add("--beside", metavar="RUN", nargs="+", default=[], help="other runs of the same videos, to compare with")
    add("--clips", type=int, default=4, metavar="N", help="clips to show (default: 4)")
    add("--frames", type=int, default=6, metavar="N", help="frames to show of each clip (default: 6)")
    add_cut_options(parser)
    add("--no-encoder", action="store_true", help="leave out the features before merging, which need the encoder")
    add("--out", dest="page", type=Path, metavar="FILE", help="page to write (default: RUN/report.html)")


def run(options: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    from jobs.commands.inspect import inspect
    from jobs.report.page import render
    from pipeline.cache.preview import clip_facts
    from pipeline.store import open_store

    facts = inspect(options.out)
    cut = cut_of(options)
    clips = clip_facts(options.out, cut)
    views = _views(options, facts["run"], clips, cut)
    page = render(facts, clips, views, summary=_summary(options.out), verdict=_verdict(options.out, facts))
    if options.page is None:
        target = f"{options.out.rstrip('/')}/report.html"
        open_store(options.out).put("report.html", page.encode())
    else:
        target = str(options.page)
        folder = open_store(options.page.parent)
        folder.make()
        folder.put(options.page.name, page.encode())
    print(f"report: {target} ({len(page) / 1e6:.2f} MB, {counted(len(views), 'clip')} shown)")
    return 0


def chosen_clips(fidelities: Sequence[float], count: int) -> list[int]:
    """Positions of the clips to show: half of them the worst, the others spread over the run; the worst first."""
    from pipeline.cache.preview import spread

    by_fidelity = sorted(range(len(fidelities)), key=lambda position: (fidelities[position], position))
    worst = by_fidelity[: (count + 1) // 2]
    rest = [position for position in by_fidelity if position not in set(worst)]
    others = [rest[index] for index in spread(len(rest), count - len(worst))]
    return worst + others


def _views(
    options: argparse.Namespace, run: dict[str, Any], clips: Sequence[ClipFacts], cut: Cut | None
) -> list[dict[str, Any]]:
    from jobs.report.clip_view import clip_view
    from pipeline.cache.preview import preview_clips

    positions = chosen_clips([clip.fidelity for clip in clips], options.clips)
    encoder = None if options.no_encoder or not positions else _source_tokens(run)
    views = []
    for preview in preview_clips(options.out, len(positions), options.frames, cut, positions):
        others = [_same_clip(out, preview, options.frames, cut) for out in options.beside]
        views.append(clip_view([preview, *others], [options.out, *options.beside], encoder))
    return views


def _same_clip(out: str, preview: Preview, frames: int, cut: Cut | None) -> Preview:
    """The clip of another run that covers the same part of the same video.

    Raises:
        SettingsError: that run has none.
    """
    from pipeline import TokenCache
    from pipeline.cache.preview import preview_clips

    clip = preview.clip
    ids = TokenCache(out).clip_ids
    if clip.clip_id not in ids:
        raise SettingsError(f"--beside {out} has no clip {clip.clip_id}: it is of other videos")
    (other,) = preview_clips(out, 1, frames, cut, [ids.index(clip.clip_id)])
    if (other.clip.start_ns, other.clip.end_ns) != (clip.start_ns, clip.end_ns):
        raise SettingsError(f"--beside {out} has clips of another length: extract both with the same --clip-frames")
    return other


def _source_tokens(run: dict[str, Any]) -> SourceTokens | None:
    """The run's encoder; None, with a word, where it is not at hand."""
    from pipeline.replay import encoder_of

    try:
        return encoder_of(run).source_tokens
    except (ExtractError, ValueError, OSError) as error:
        log.warning("no features before merging: %s", error)
        return None


def _summary(out: str) -> dict[str, Any] | None:
    from pipeline.store import open_store

    try:
        found: dict[str, Any] = json.loads(open_store(out).get(SUMMARY))
    except (OSError, ValueError):
        return None
    return found


def _verdict(out: str, facts: dict[str, Any]) -> str:
    from pipeline.verify import verify

    if facts["totals"]["size_bytes"] > VERIFY_BYTES:
        return f"not checked here, because the run is large: run vtm verify {out}"
    found = verify(out)
    if found.is_sound:
        return "complete and undamaged"
    return f"{counted(len(found.problems), 'problem')}: run vtm verify {out}"
