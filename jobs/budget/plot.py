"""What each setting keeps against what it costs, as one SVG: a line a strategy, a point a share."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from jobs.budget.measure import BudgetRow, Measured
from pipeline.counted import counted

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 56, 56
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#b35806", "#1d1d1b")
"""Told apart by eyes of every kind (Okabe and Ito 2008)."""
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1d1d1b}.faint{fill:#6d6d68}"
    ".end{text-anchor:end}.middle{text-anchor:middle}"
    ".title{font-weight:600;font-size:15px}.grid{stroke:#e4e3de}.wanted{stroke:#6d6d68;stroke-dasharray:2 4}"
)
LABEL_PX = 16


def plot(measured: Measured, reach: float | None, chosen: BudgetRow | None) -> str:
    """The picture, as the text of an SVG file.

    Args:
        measured: All settings.
        reach: The wanted mean cosine, drawn as a line.
        chosen: The setting that is marked as the cheapest that reaches it.
    """
    rows = measured.rows
    mega = [row.bytes_per_hour / 1e6 for row in rows]
    low = math.floor(min(row.p5_cosine for row in rows) * 20 - 0.5) / 20
    place_x = _log_scale(min(mega) / 1.15, max(mega) * 1.15)
    place_y = _linear_scale(max(low, 0.0), 1.0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" class="title">What merged tokens keep, and what they cost</text>',
        f'<text x="{LEFT}" y="43" class="faint">cosine between a patch and the token that represents it: '
        f"mean (solid), 5th percentile (dashed); {counted(measured.clips, 'clip')}, "
        f"{measured.video_s:.0f} s of video</text>",
        *_grid(place_x, place_y, min(mega), max(mega), max(low, 0.0)),
    ]
    if reach is not None:
        y = place_y(reach)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="wanted"/>')
        parts.append(f'<text x="{LEFT + 6}" y="{y - 5:.1f}" class="faint">wanted: {reach:g}</text>')
    parts += _lines(rows, place_x, place_y)
    if chosen is not None:
        x, y = place_x(chosen.bytes_per_hour / 1e6), place_y(chosen.mean_cosine)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="none" stroke="#d55e00" stroke-width="2.5"/>')
        parts.append(
            f'<text x="{LEFT}" y="{HEIGHT - 8}" fill="#d55e00" style="fill:#d55e00">cheapest that reaches it: '
            f"{html.escape(chosen.options)}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _log_scale(low: float, high: float) -> Callable[[float], float]:
    span = math.log(high / low)
    return lambda value: LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / low) / span


def _linear_scale(low: float, high: float) -> Callable[[float], float]:
    return lambda value: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)


def _grid(
    place_x: Callable[[float], float], place_y: Callable[[float], float], least: float, most: float, low: float
) -> list[str]:
    parts = []
    step = 0.05 if low > 0.6 else 0.1
    for number in range(math.ceil(low / step - 1e-9), round(1 / step) + 1):
        y = place_y(number * step)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" class="end">{number * step:.2f}</text>')
    for exponent in range(-3, 7):
        for digit in (1, 2, 5):
            value = digit * 10.0**exponent
            if least / 1.15 <= value <= most * 1.15:
                x = place_x(value)
                parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="grid"/>')
                parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" class="middle">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - BOTTOM + 35}" class="middle faint">MB an hour of video</text>')
    return parts


def _lines(
    rows: Sequence[BudgetRow], place_x: Callable[[float], float], place_y: Callable[[float], float]
) -> list[str]:
    parts = []
    names = list(dict.fromkeys(row.strategy for row in rows))
    ends: list[tuple[float, str, str]] = []
    for name, colour in zip(names, COLOURS * 2, strict=False):
        mine = sorted((row for row in rows if row.strategy == name), key=lambda row: row.bytes_per_hour)
        for dashes, what in (("5 4", "p5_cosine"), ("none", "mean_cosine")):
            points = [(place_x(row.bytes_per_hour / 1e6), place_y(getattr(row, what))) for row in mine]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            pen = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
            parts.append(f'<polyline points="{path}" {pen}/>')
            for row, (x, y) in zip(mine, points, strict=True):
                title = (
                    f"{html.escape(row.options)}: {getattr(row, what):.4f}, {row.bytes_per_hour / 1e6:.1f} MB an hour"
                )
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{title}</title></circle>'
                )
        ends.append((points[-1][1], name, colour))
    return parts + _labels(ends)


def _labels(ends: Sequence[tuple[float, str, str]]) -> list[str]:
    """The strategies' names beside the ends of their lines, pushed apart where they would overlap."""
    parts, below = [], -math.inf
    for y, name, colour in sorted(ends):
        below = max(y + 4, below + LABEL_PX)
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{below:.1f}" style="fill:{colour}">{html.escape(name)}</text>')
    return parts
