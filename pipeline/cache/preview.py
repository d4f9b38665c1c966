"""A few clips of a run with their pictures: what a person looks at to see a merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.cut import Cut, check_cut, coarsened
from pipeline.cache.token_cache import TokenCache
from pipeline.errors import DecodeError
from pipeline.plan.index_file import read_index
from pipeline.shards.run_folder import clip_of_run, picture_of
from pipeline.shards.scan import ClipFacts
from pipeline.store import Where
from pipeline.values import TokenSet
from pipeline.video import open_video, timing_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preview:
    """Some frames of a clip and the tokens that represent their patches."""

    clip: TokenSet
    shown: tuple[int, ...]
    """Positions of the frames among those sampled; of several that share a step of the grid, the first."""
    frames: NDArray[np.uint8] | None
    """(len(shown), height, width, 3) RGB; None where the video is not there any more."""
    group: NDArray[np.int64]
    """(len(shown), H, W): the token of each patch."""
    tubelet_frames: int = 1
    """Frames that one step of the grid in time holds: a video model's tubelet."""


def clip_facts(out: Where, cut: Cut | None = None) -> list[ClipFacts]:
    """Every committed clip, in order of video and clip: no token is read, unless a cut leaves some of them.

    Raises:
        RunFolderError, SettingsError: they cannot be cut so.
    """
    cache = TokenCache(out)
    if cut is None:
        return list(cache.facts())
    check_cut(cache.path, cache.run, cut)
    return [_facts_of(coarsened(cache.token_set(position), cut)) for position in range(len(cache))]


def _facts_of(clip: TokenSet) -> ClipFacts:
    return ClipFacts(
        clip_id=clip.clip_id,
        video_id=clip.video_id,
        uri=clip.uri,
        clip_index=clip.clip_index,
        start_ns=clip.start_ns,
        end_ns=clip.end_ns,
        grid_thw=clip.grid_thw,
        num_tokens=len(clip.tokens),
        fidelity=clip.fidelity,
        damaged_frames=clip.damaged_frames,
    )


def spread(total: int, count: int) -> list[int]:
    """`count` positions of `total`, spread evenly."""
    return sorted(set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())) if total else []


def preview_clips(
    out: Where,
    num_clips: int,
    num_frames: int,
    cut: Cut | None = None,
    positions: Sequence[int] | None = None,
) -> Iterator[Preview]:
    """Some clips, each with frames spread over it; no others are read.

    Args:
        out: The run.
        num_clips: How many, spread over the run.
        num_frames: Frames of each.
        cut: Merge them further.
        positions: These clips instead, by their position in the run.

    Raises:
        RunFolderError, SettingsError: they cannot be cut so.
    """
    cache = TokenCache(out)
    if cut is not None:
        check_cut(cache.path, cache.run, cut)
    tubelet_frames = cache.run["encoder"].get("tubelet_frames", 1)
    for position in spread(len(cache), num_clips) if positions is None else positions:
        clip = cache.token_set(position)
        clip = clip if cut is None else coarsened(clip, cut)
        count = clip.grid_thw[0]
        rows = np.unique(np.linspace(0, count - 1, min(num_frames, count)).round().astype(int))
        shown = (rows * tubelet_frames).tolist()
        yield Preview(
            clip=clip,
            shown=tuple(shown),
            frames=_frames(out, cache.run, clip, shown),
            group=clip.group.astype(np.int64).reshape(clip.grid_thw)[rows],
            tubelet_frames=tubelet_frames,
        )


def _frames(out: Where, run: dict[str, Any], clip: TokenSet, shown: Sequence[int]) -> NDArray[np.uint8] | None:
    try:
        info = read_index(out, clip.video_id, clip.uri)
        spec = clip_of_run(run, info, clip.clip_index)
        # Of a model that takes even time, frames are counted as often as they are on display.
        is_even = len(clip.frame_time_ns) == sum(spec.frame_instants)
        counts = spec.frame_instants if is_even else (1,) * len(spec.frame_pts)
        taken = [tick for tick, count in zip(spec.frame_pts, counts, strict=True) for _ in range(count)]
        pts = [taken[i] for i in shown if i < len(taken)]
        once = sorted(set(pts))
        few = replace(spec, frame_pts=tuple(once), frame_instants=(1,) * len(once))
        with open_video(timing_of(info)) as source:
            decoded = next(iter(source.decode([few], picture_of(run)))).frames
    except (DecodeError, StopIteration):
        return None
    frames = decoded[[once.index(tick) for tick in pts]]
    return frames if len(frames) == len(shown) else None
