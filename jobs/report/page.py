"""The report's HTML: data and pictures poured into page.html; nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import html
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.preview import Preview
from pipeline.shards.scan import ClipFacts

PAGE = Path(__file__).with_name("page.html")
HISTOGRAM_BINS = 24
MOST_ROWS = 500


def render(facts: dict[str, Any], clips: Sequence[ClipFacts], previews: Sequence[Preview]) -> str:
    """The whole page."""
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        totals=_totals(facts, clips),
        settings=_settings(facts["run"]),
        videos=_videos(facts["videos"]),
        failures=_failures(facts["failures"]),
        fidelity_of=fidelity_of(facts["run"]["settings"]),
        fidelity=_histogram([clip.fidelity for clip in clips]),
        # "</" would end the script element early.
        previews=json.dumps([_preview(p) for p in previews]).replace("</", "<\\/"),
    )


def fidelity_of(settings: dict[str, Any]) -> str:
    """What the fidelity of a run's clips is measured between."""
    if (settings.get("encoder_keep") or 1) < 1 or settings.get("reuse_levels") is not None:
        return (
            "Mean cosine between each token that the encoder left and the merged token that represents it. "
            "What the encoder merged or reused inside is not part of it."
        )
    return "Mean cosine between each source patch's token and the merged token that represents it."


def _totals(facts: dict[str, Any], clips: Sequence[ClipFacts]) -> str:
    totals = facts["totals"]
    sources = sum(clip.num_sources for clip in clips)
    tokens = sum(clip.num_tokens for clip in clips)
    figures = {
        "videos": f"{totals['videos']}",
        "of video": _duration(totals["duration_s"]),
        "clips": f"{totals['clips_done']} / {totals['clips']}",
        "source patches": f"{sources:,}",
        "merged tokens": f"{tokens:,}",
        "kept": f"{tokens / sources:.1%}" if sources else "-",
        "mean fidelity": f"{np.mean([clip.fidelity for clip in clips]):.3f}" if clips else "-",
        "on disk": f"{totals['size_bytes'] / 1e6:.1f} MB",
        "failures": f"{totals['failures']}",
    }
    return "".join(f"<div><b>{html.escape(value)}</b><span>{name}</span></div>" for name, value in figures.items())


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _settings(run: dict[str, Any]) -> str:
    rows = {"fingerprint": run["fingerprint"], "encoder": run["encoder"]["name"]}
    rows |= {"weights sha256": run["encoder"]["weights_sha256"][:16], "arithmetic": run["encoder"]["compute_dtype"]}
    rows |= {name: value for name, value in run["settings"].items() if name != "encoder" and value is not None}
    rows |= {f"{name} version": value for name, value in run["versions"].items()}
    return "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows.items())


def _videos(videos: Sequence[dict[str, Any]]) -> str:
    rows = []
    for video in videos[:MOST_ROWS]:
        size = f"{video['width_px']} x {video['height_px']}" if video["width_px"] else ""
        cells = [video["uri"], video["codec"], size, f"{video['duration_found_s']:.1f}"]
        cells += [f"{video['clips_done']} / {video['clips']}", video["damaged_frames"] or ""]
        notes = "; ".join([video["picture_policy"], *video["warnings"]])
        status = f'<td class="{video["status"]}">{video["status"]}</td>'
        rows.append("<tr>" + "".join(f"<td>{_text(c)}</td>" for c in cells) + status + f"<td>{_text(notes)}</td></tr>")
    if len(videos) > MOST_ROWS:
        rows.append(f'<tr><td colspan="8">and {len(videos) - MOST_ROWS} more in videos.parquet</td></tr>')
    return "".join(rows)


def _failures(failures: Sequence[dict[str, Any]]) -> str:
    if not failures:
        return "<p>None.</p>"
    rows = []
    for failed in failures[:MOST_ROWS]:
        span = f"{failed['start_ns'] / 1e9:.1f} to {failed['end_ns'] / 1e9:.1f} s" if failed["end_ns"] else "all of it"
        cells = [failed["uri"], span, failed["failure"], failed["attempts"], failed["message"]]
        rows.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    head = "<tr><th>video</th><th>range</th><th>class</th><th>attempts</th><th>message</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _histogram(values: Sequence[float]) -> str:
    """Bars of how many clips have which fidelity, as SVG."""
    if not values:
        return "<p>No clip.</p>"
    low = min(min(values), 0.9)
    counts, edges = np.histogram(values, bins=HISTOGRAM_BINS, range=(low, 1.0))
    width, height = 20, 90
    bars = []
    for i, count in enumerate(counts):
        tall = height * count / max(counts.max(), 1)
        title = f"{edges[i]:.3f} to {edges[i + 1]:.3f}: {count} clips"
        bars.append(
            f'<rect x="{i * width + 1}" y="{height - tall:.1f}" width="{width - 2}" height="{tall:.1f}">'
            f"<title>{title}</title></rect>"
        )
    span = HISTOGRAM_BINS * width
    labels = f'<text x="0" y="{height + 15}">{low:.2f}</text><text x="{span}" y="{height + 15}" class="end">1.00</text>'
    return f'<svg viewBox="0 0 {span} {height + 20}" class="bars" role="img">{"".join(bars)}{labels}</svg>'


def _preview(preview: Preview) -> dict[str, Any]:
    clip = preview.clip
    times = [round(int(clip.frame_time_ns[i]) / 1e9, 2) for i in preview.shown]
    frames = None if preview.frames is None else [data_uri(frame) for frame in preview.frames]
    return {
        "title": f"{clip.uri}, clip {clip.clip_index}",
        "start_s": clip.start_ns / 1e9,
        "end_s": clip.end_ns / 1e9,
        "tokens": len(clip.tokens),
        "sources": len(clip.group),
        "fidelity": round(clip.fidelity, 4),
        "times_s": times,
        "frames": frames,
        "group": preview.group.tolist(),
        "sizes": clip.sizes.tolist(),
        "centers_t": [round(float(t), 1) for t in clip.centers[:, 0]],
    }


def _text(value: object) -> str:
    return html.escape(str(value))


def data_uri(rgb: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) as a PNG in a data address (RFC 2083); rows filtered by `sub`, which suits photographs."""
    height, width, _ = rgb.shape
    left = np.zeros_like(rgb)
    left[:, 1:] = rgb[:, :-1]
    rows = np.concatenate([np.ones((height, 1), np.uint8), (rgb - left).reshape(height, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return "data:image/png;base64," + base64.b64encode(png + chunk(b"IEND", b"")).decode()
