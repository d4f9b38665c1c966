"""What the page says of a whole run, in numbers and small drawings: from facts of clips, without their tokens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.counted import counted, plural
from pipeline.shards.scan import ClipFacts

HISTOGRAM_BINS = 24
MOST_VIDEOS = 200
MOST_FAILURES = 100
MOST_WORST = 10


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram."""

    low: float
    high: float
    count: int
    share: float
    """Of the highest bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a video's time line, in shares of its length."""

    start: float
    width: float
    kind: str
    """`damaged` or `failed`."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLine:
    """One video of the table."""

    name: str
    uri: str
    about: str
    length: str
    clips: str
    status: str
    notes: str
    mean: float | None
    worst: float | None
    spans: tuple[Span, ...]


def totals(facts: dict[str, Any], clips: Sequence[ClipFacts]) -> list[tuple[str, str, str]]:
    """The figures at the head of the page: value, name, and what it means."""
    total = facts["totals"]
    sources, tokens = sum(clip.num_sources for clip in clips), sum(clip.num_tokens for clip in clips)
    fidelity = (
        f"{np.average([c.fidelity for c in clips], weights=[c.num_sources for c in clips]):.3f}" if clips else "-"
    )
    return [
        (f"{total['videos']:,}", plural(total["videos"], "video"), duration(total["duration_s"])),
        (f"{total['clips_done']:,} / {total['clips']:,}", plural(total["clips"], "clip"), "extracted of planned"),
        (f"{sources:,}", plural(sources, "source patch"), "tokens of the encoder before merging"),
        (f"{tokens:,}", plural(tokens, "merged token"), f"{tokens / sources:.1%} of the patches" if sources else ""),
        (fidelity, "mean fidelity", "cosine of patches and the tokens that represent them"),
        (f"{total['size_bytes'] / 1e6:.1f} MB", "on disk", f"in {counted(total['shards'], 'shard')}"),
    ]


def run_lines(summary: dict[str, Any] | None, verdict: str) -> list[tuple[str, str]]:
    """How the run went: name and value."""
    lines = [("verified", verdict)]
    if summary is None:
        return [*lines, ("speed", "not recorded for this run folder")]
    run = summary["run"]
    hours = run["video_ns"] / 3.6e12
    speed = f"{run['video_ns'] / 1e9 / max(run['wall_s'], 1e-9):.0f} times real time"
    used = "of the CPU time was used" if run["shared_cores"] else "of the time busy"
    lines += [
        ("speed", f"{speed} ({hours:.2f} h of video in {run['wall_s']:.0f} s, start-up {run['startup_s']:.0f} s)"),
        ("bound by", f"{run['bound']} ({run['efficiency']:.0%} {used})"),
    ]
    if run.get("encoded_patches") is not None:
        reused = 1 - run["encoded_patches"] / max(run["patches"], 1)
        lines.append(("reused patches", f"{reused:.0%} of the patches were not encoded again"))
    return lines


def failures_by_class(failures: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """How many failed ranges each class has, most first."""
    return Counter(str(failed["failure"]) for failed in failures).most_common()


def histogram(values: Sequence[float]) -> list[Bar]:
    """How many clips have which fidelity."""
    if not values:
        return []
    counts, edges = np.histogram(values, bins=HISTOGRAM_BINS, range=(min(*values, 0.9), 1.0))
    most = max(int(counts.max()), 1)
    return [Bar(float(edges[i]), float(edges[i + 1]), int(count), int(count) / most) for i, count in enumerate(counts)]


def worst_clips(clips: Sequence[ClipFacts], count: int = MOST_WORST) -> list[int]:
    """Positions of the clips with the lowest fidelity, the worst first."""
    return sorted(range(len(clips)), key=lambda position: (clips[position].fidelity, position))[:count]


def video_lines(
    videos: Sequence[dict[str, Any]], clips: Sequence[ClipFacts], failures: Sequence[dict[str, Any]]
) -> list[VideoLine]:
    """The table of videos: those with failures first, then by their worst clip."""
    clips_of, failures_of = defaultdict(list), defaultdict(list)
    for clip in clips:
        clips_of[clip.video_id].append(clip)
    for failed in failures:
        failures_of[failed["video_id"]].append(failed)
    lines = [_line(video, clips_of[video["video_id"]], failures_of[video["video_id"]]) for video in videos]
    return sorted(lines, key=lambda line: (line.status == "done", 1.0 if line.worst is None else line.worst))[
        :MOST_VIDEOS
    ]


def _line(video: dict[str, Any], clips: Sequence[ClipFacts], failures: Sequence[dict[str, Any]]) -> VideoLine:
    fidelities = [clip.fidelity for clip in clips]
    size = f"{video['width_px']} x {video['height_px']}, " if video["width_px"] else ""
    return VideoLine(
        name=video["uri"].rsplit("/", 1)[-1],
        uri=video["uri"],
        about=f"{size}{video['codec']}",
        length=duration(video["duration_found_s"]),
        clips=f"{video['clips_done']} / {video['clips']}",
        status=video["status"],
        notes="; ".join([video["picture_policy"], *video["warnings"]]).strip("; "),
        mean=float(np.mean(fidelities)) if fidelities else None,
        worst=min(fidelities, default=None),
        spans=_spans(video, clips, failures),
    )


def _spans(video: dict[str, Any], clips: Sequence[ClipFacts], failures: Sequence[dict[str, Any]]) -> tuple[Span, ...]:
    """Where a video is damaged or lost."""
    end_ns = max([video["duration_found_s"] * 1e9, *(f["end_ns"] for f in failures), *(c.end_ns for c in clips)])
    if not end_ns:
        return ()
    spans = [
        _span(clip.start_ns, clip.end_ns, end_ns, "damaged", counted(clip.damaged_frames, "damaged frame"))
        for clip in clips
        if clip.damaged_frames
    ]
    spans += [
        _span(f["start_ns"], f["end_ns"] or end_ns, end_ns, "failed", f"{f['failure']}: {f['message']}")
        for f in failures
    ]
    return tuple(spans)


def _span(start_ns: float, stop_ns: float, end_ns: float, kind: str, text: str) -> Span:
    times = f"{clock(start_ns / 1e9)} to {clock(stop_ns / 1e9)}"
    width = max((stop_ns - start_ns) / end_ns, 0.004)
    return Span(start=start_ns / end_ns, width=width, kind=kind, text=f"{times}: {text}")


def duration(seconds: float) -> str:
    """For people."""
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def clock(seconds: float) -> str:
    """As a player shows it: 1:02:03 or 2:03."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
