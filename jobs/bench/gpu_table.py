"""The figures of `vtm bench gpu` as a Markdown page."""

from __future__ import annotations

from typing import Any

FIGURES = (
    *("frames_per_s", "ceiling_share", "times_transformers", "wall_s", "efficiency", "clips_per_s", "times_plain"),
    *("video_hours_per_device_hour", "busy_share", "encode_share", "peak_bytes", "fidelity", "largest_difference"),
    *("cpu_s", "mean_levels_apart", "most_levels_apart"),
)
"""Columns of the table, where a row has them."""


def markdown(report: dict[str, Any]) -> str:
    """One table a step, under the name of the device."""
    lines = [f"# {report['machine']}", "", "Made by `vtm bench gpu`."]
    if report["dry_run"]:
        lines += ["", "**A rehearsal on a CPU, in small: these figures mean nothing.**"]
    for step in report["steps"]:
        wall = f", {step['wall_s']:.0f} s" if "wall_s" in step else ""
        lines += ["", f"## {step['name']}: {step['outcome']}{wall}", ""]
        if "command" in step:
            lines += [f"    {step['command']}", ""]
        if "error" in step:
            lines += ["```", step["error"], "```"]
        if "told" in step:
            lines.append(step["told"])
        lines += _rows(step.get("rows", []))
    return "\n".join(lines) + "\n"


def _rows(rows: list[dict[str, Any]]) -> list[str]:
    names = [name for name in FIGURES if any(name in row for row in rows)]
    if not rows:
        return []
    lines = ["| | " + " | ".join(name.replace("_", " ") for name in names) + " |", "| --- |" + " --- |" * len(names)]
    for row in rows:
        label = ", ".join(str(row[key]) for key in ("name", "attention", "dim") if key in row)
        lines.append(f"| {label} | " + " | ".join(_figure(row.get(name)) for name in names) + " |")
    return lines


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
