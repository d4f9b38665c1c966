"""What was found, as one picture: the query above, the matches below, each with its time and score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE_WIDTH_PX, TILE_HEIGHT_PX = 320, 180
CAPTION_PX = 44
MARGIN_PX = 12
TEXT_PX = 15
COLUMNS = 4
PAPER, INK, FAINT, EMPTY = "#fafaf8", "#1d1d1b", "#6d6d68", "#e4e3de"


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A picture with two lines under it."""

    picture: NDArray[np.uint8] | None
    """(H, W, 3) uint8 RGB; None where it cannot be had."""
    title: str
    detail: str = ""


def contact_sheet(queries: Sequence[Tile], matches: Sequence[Tile]) -> Image.Image:
    """Lay the tiles out in rows of COLUMNS: what was asked for first, then what was found, best first."""
    bands = [band for band in (list(queries), list(matches)) if band]
    rows = [band[start : start + COLUMNS] for band in bands for start in range(0, len(band), COLUMNS)]
    step_x, step_y = TILE_WIDTH_PX + MARGIN_PX, TILE_HEIGHT_PX + CAPTION_PX + MARGIN_PX
    sheet = Image.new("RGB", (MARGIN_PX + COLUMNS * step_x, MARGIN_PX + len(rows) * step_y), PAPER)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            _place(sheet, tile, MARGIN_PX + x * step_x, MARGIN_PX + y * step_y)
    return sheet


def _place(sheet: Image.Image, tile: Tile, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    if tile.picture is None:
        draw.rectangle((left, top, left + TILE_WIDTH_PX - 1, top + TILE_HEIGHT_PX - 1), fill=EMPTY)
        draw.text((left + 10, top + 10), "the video cannot be read", fill=FAINT, font=_font())
    else:
        picture = ImageOps.contain(Image.fromarray(tile.picture), (TILE_WIDTH_PX, TILE_HEIGHT_PX))
        sheet.paste(picture, (left + (TILE_WIDTH_PX - picture.width) // 2, top + TILE_HEIGHT_PX - picture.height))
    draw.text((left, top + TILE_HEIGHT_PX + 4), _fitted(tile.title), fill=INK, font=_font())
    draw.text((left, top + TILE_HEIGHT_PX + 4 + TEXT_PX + 3), _fitted(tile.detail), fill=FAINT, font=_font())


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=TEXT_PX)


def _fitted(text: str) -> str:
    """The text, shortened in its middle to the width of a tile."""
    font, shown = _font(), text
    while font.getlength(shown) > TILE_WIDTH_PX and len(text) > 3:
        text = text[: len(text) // 2 - 1] + text[len(text) // 2 + 1 :]
        shown = f"{text[: len(text) // 2]}…{text[len(text) // 2 :]}"
    return shown
