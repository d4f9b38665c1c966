"""Options that cut a run's clips down to fewer tokens as they are read, of every command that reads them so."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.cache.cut import Cut


def add_cut_options(parser: argparse.ArgumentParser) -> None:
    """`--keep`, `--tokens-per-clip`, `--fidelity` or `--max-loss`, at most one of them; and `--lloyd` beside it."""
    add = parser.add_mutually_exclusive_group().add_argument
    add("--keep", type=float, metavar="SHARE", help="merge further, to this share of the source patches")
    add("--tokens-per-clip", type=int, metavar="M", help="merge further, to this many tokens per clip")
    add("--fidelity", type=float, metavar="COSINE", help="merge further, to as few tokens as have this mean cosine")
    add("--max-loss", type=float, metavar="LOSS", help="merge further, up to one loss for all clips (see `vtm budget`)")
    parser.add_argument(
        "--lloyd",
        type=int,
        default=0,
        metavar="STEPS",
        help="then regroup each clip's stored tokens around those left, so many times: more fidelity at few tokens",
    )


def cut_of(options: argparse.Namespace) -> Cut | None:
    """What the options ask for; None where none is given."""
    from pipeline.cache.cut import cut_asked_for

    return cut_asked_for(
        keep=options.keep,
        tokens=options.tokens_per_clip,
        fidelity=options.fidelity,
        max_loss=options.max_loss,
        lloyd_steps=options.lloyd,
    )
