"""A previewed clip as the data that the page draws: pictures, the token of every patch, colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.report.overview import clock
from jobs.report.pictures import base64_of, component_colours, data_uri, principal_axes
from pipeline.cache.preview import Preview
from pipeline.cache.token_values import decoded_tokens

SourceTokens = Callable[[NDArray[np.uint8]], "NDArray[np.float32]"]
"""Frames (T, h, w, 3) to their tokens before merging (T, H*W, D)."""


def clip_view(previews: Sequence[Preview], names: Sequence[str], source_tokens: SourceTokens | None) -> dict[str, Any]:
    """One clip, as one or several runs have it.

    Args:
        previews: The same clip of each run.
        names: Of the runs.
        source_tokens: The encoder of the first run, where it is at hand.
    """
    first = previews[0]
    clip = first.clip
    return {
        "title": f"{clip.uri.rsplit('/', 1)[-1]}, clip {clip.clip_index}",
        "uri": clip.uri,
        "start": clock(clip.start_ns / 1e9),
        "end": clock(clip.end_ns / 1e9),
        "damaged": clip.damaged_frames,
        "times_s": [round(int(clip.frame_time_ns[i]) / 1e9, 2) for i in first.shown],
        "frames": None if first.frames is None else [data_uri(frame) for frame in first.frames],
        "row_times_s": [round(int(t) / 1e9, 2) for t in clip.frame_time_ns[:: first.tubelet_frames]],
        "runs": [_run_view(preview, name) for preview, name in zip(previews, names, strict=True)],
        "source_colours": _source_colours(first, source_tokens),
    }


def _run_view(preview: Preview, name: str) -> dict[str, Any]:
    clip = preview.clip
    colours_M3, _ = component_colours(_tokens(preview), _axes(preview))
    return {
        "name": name,
        "tokens": len(clip.tokens),
        "sources": len(clip.group),
        "fidelity": round(float(clip.fidelity), 4),
        "grid": list(clip.grid_thw),
        "group": base64_of(clip.group.astype("<u4" if len(clip.tokens) > 1 << 16 else "<u2")),
        "wide": len(clip.tokens) > 1 << 16,
        "shown_rows": [shown // preview.tubelet_frames for shown in preview.shown],
        "colours": base64_of(colours_M3),
    }


def _tokens(preview: Preview) -> NDArray[np.float32]:
    clip = preview.clip
    return decoded_tokens(clip.tokens, clip.tokens_dtype, clip.tokens_scale)


def _axes(preview: Preview) -> NDArray[np.float32]:
    return principal_axes(_tokens(preview), preview.clip.sizes.astype(np.float32))


def _source_colours(preview: Preview, source_tokens: SourceTokens | None) -> str | None:
    """Colours of the shown frames' tokens before merging, by the axes of the merged ones, (frames, H*W, 3) uint8."""
    if source_tokens is None or preview.frames is None or preview.tubelet_frames != 1:
        return None
    before = source_tokens(preview.frames)
    if before.shape[-1] != _tokens(preview).shape[-1]:
        return None
    axes = _axes(preview)
    _, limits = component_colours(_tokens(preview), axes)
    colours, _ = component_colours(before.reshape(-1, before.shape[-1]), axes, limits)
    return base64_of(colours)
