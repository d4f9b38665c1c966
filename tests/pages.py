"""The README and the pages under docs/: what they show as code, and whether it is run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(str(path.relative_to(ROOT)) for folder in (ROOT, ROOT / "docs") for path in sorted(folder.glob("*.md")))
CODE = ("bash", "python", "toml", "csv")
"""Languages of blocks that are run or read. `text` is for drawings, formulas and output."""
_BLOCK = re.compile(r"^(<!-- not run: (?P<reason>[^>]+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.S | re.M)
_LIST_ITEM = re.compile(r"(?:[-*]|\d+\.) ")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        reason: why it is not run; None where it is.
    """

    page: str
    number: int
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> list[Block]:
    found = _BLOCK.finditer(text_of(page))
    return [
        Block(page, number, block["language"], block["code"], block["reason"]) for number, block in enumerate(found)
    ]


def indented_blocks(page: str) -> list[str]:
    """First lines of blocks that are code by indentation alone: those are neither run nor marked."""
    found, in_list = [], False
    lines = _BLOCK.sub("", text_of(page)).split("\n")
    for before, line in zip(["", *lines], lines, strict=False):
        in_list = bool(_LIST_ITEM.match(line)) or (in_list and (not line or line.startswith(" ")))
        if line.startswith("    ") and not before and not in_list:
            found.append(line.strip())
    return found


def shown_commands(page: str) -> list[str]:
    """Commands that stand in the text between backticks."""
    text = _BLOCK.sub("", text_of(page))
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return [span for span in spans if re.match(r"(?:\w+=\S+ )*(?:time )?(?:vtm|python -m|pytest|make) ", span)]
