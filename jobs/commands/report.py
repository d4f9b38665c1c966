"""`vtm report`: one self-contained page that shows what was run and what was merged."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and how much to show."""
    parser.add_argument("out", metavar="DIR", help="run folder, or the address of one")
    parser.add_argument("--clips", type=int, default=4, metavar="N", help="clips to show, spread over the run (4)")
    parser.add_argument("--frames", type=int, default=6, metavar="N", help="frames to show of each (6)")
    parser.add_argument(
        "--keep", type=float, metavar="SHARE", help="show what is left at this share (all that is stored)"
    )
    parser.add_argument("--tokens", type=int, metavar="M", help="or at so many tokens a clip")
    parser.add_argument("--fidelity", type=float, metavar="F", help="or at this fidelity")
    parser.add_argument("--max-loss", type=float, metavar="L", help="or at this loss, as `vtm budget` finds it")
    parser.add_argument("--page", type=Path, metavar="FILE", help="where to write (DIR/report.html)")


def run(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from jobs.commands.inspect import inspect
    from jobs.report.page import render
    from pipeline.cache.cut import Cut
    from pipeline.cache.preview import clip_facts, preview_clips
    from pipeline.store import open_store

    facts = inspect(options.out)
    amount = {name: getattr(options, name) for name in ("keep", "tokens", "fidelity", "max_loss")}
    cut = Cut(**amount) if any(value is not None for value in amount.values()) else None
    previews = list(preview_clips(options.out, options.clips, options.frames, cut))
    page = render(facts, clip_facts(options.out, cut), previews)
    if options.page is None:
        target = f"{options.out.rstrip('/')}/report.html"
        open_store(options.out).put("report.html", page.encode())
    else:
        target = str(options.page)
        folder = open_store(options.page.parent)
        folder.make()
        folder.put(options.page.name, page.encode())
    print(f"report: {target} ({len(page) / 1e6:.1f} MB, {len(previews)} clips shown)")
    return 0
