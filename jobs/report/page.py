"""The report's HTML: facts and previews in a template; nothing is loaded from anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from jobs.report import overview
from jobs.report.overview import MOST_FAILURES
from pipeline.counted import counted
from pipeline.shards.scan import ClipFacts

FOLDER = Path(__file__).parent
LEFT_OUT = frozenset({"encoder", "inputs", "out"})


def render(
    facts: dict[str, Any],
    clips: Sequence[ClipFacts],
    views: Sequence[dict[str, Any]],
    *,
    summary: dict[str, Any] | None = None,
    verdict: str = "not checked",
) -> str:
    """The whole page.

    Args:
        facts: Of the run, as `vtm inspect --json` prints them.
        clips: Facts of every clip.
        views: The clips shown, from `clip_view`.
        summary: What the latest run took, where it is recorded.
        verdict: What verification said.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
    )
    failures = facts["failures"]
    return environment.get_template("page.html").render(
        title=str(facts["run"]["encoder"]["name"]),
        totals=overview.totals(facts, clips),
        run_lines=overview.run_lines(summary, verdict),
        failure_classes=overview.failures_by_class(failures),
        failures=failures[:MOST_FAILURES],
        more_failures=len(failures) - MOST_FAILURES,
        histogram=overview.histogram([clip.fidelity for clip in clips]),
        worst=[clips[position] for position in overview.worst_clips(clips)],
        videos=overview.video_lines(facts["videos"], clips, failures),
        num_videos=len(facts["videos"]),
        settings=_settings(facts["run"]),
        clock=overview.clock,
        counted=counted,
        fidelity_of=fidelity_of(facts["run"]["settings"]),
        # No name of a file may end the script element.
        views=json.dumps(list(views), separators=(",", ":")).replace("<", "\\u003c"),
        can_compare=any(view["source_colours"] for view in views),
    )


def _settings(run: dict[str, Any]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("fingerprint", run["fingerprint"]),
        ("encoder", run["encoder"]["name"]),
        ("weights, SHA-256", run["encoder"]["weights_sha256"][:16]),
        ("arithmetic", run["encoder"]["compute_dtype"]),
    ]
    rows += [(n, value) for n, value in run["settings"].items() if n not in LEFT_OUT and value is not None]
    return rows + [(f"{name} version", value) for name, value in run["versions"].items()]


def fidelity_of(settings: dict[str, Any]) -> str:
    """What the fidelity of a run's clips is measured between."""
    if (settings.get("encoder_keep") or 1) < 1 or settings.get("reuse_levels") is not None:
        return (
            "Mean cosine between each token that the encoder left and the merged token that represents it. "
            "What the encoder merged or reused inside is not part of it."
        )
    return "Mean cosine between each source patch's token and the merged token that represents it."
