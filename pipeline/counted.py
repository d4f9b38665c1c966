"""Counts as people read them: `1 video`, `2 failed ranges`."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    Args:
        count: 0 or more.
        noun: in the singular, maybe with words before it, as `failed range`.
    """
    return f"{count} {plural(count, noun)}"


IRREGULAR = {"epoch": "epochs"}


def plural(count: int, noun: str) -> str:
    """The noun alone, as it follows such a number."""
    if count == 1:
        return noun
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
