"""A few clips of a run with their pictures: what a person looks at to see a merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cut import Cut, check_cut, coarsened
from pipeline.errors import DecodeError
from pipeline.plan.index_file import read_index
from pipeline.shards.manifest import read_manifests
from pipeline.shards.run_folder import clip_of_run, picture_of, read_run
from pipeline.shards.scan import read_shard
from pipeline.values import TokenSet
from pipeline.video import open_video, timing_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """One clip in a few numbers."""

    clip_id: str
    uri: str
    start_ns: int
    num_tokens: int
    num_sources: int
    fidelity: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preview:
    """Some frames of a clip and the tokens that stand for their patches."""

    clip: TokenSet
    shown: tuple[int, ...]
    """Positions of the frames among those sampled; of several that share a step of the grid, the first."""
    frames: NDArray[np.uint8] | None
    """(len(shown), height, width, 3) RGB; None where the video is not there any more."""
    group: NDArray[np.int64]
    """(len(shown), H, W): the token of each patch."""


def clip_facts(out: Path, cut: Cut | None = None) -> list[ClipFacts]:
    """Every committed clip, in order of shard and row; with the tokens that a cut leaves, where there is one."""
    return [
        ClipFacts(
            clip_id=clip.clip_id,
            uri=clip.uri,
            start_ns=clip.start_ns,
            num_tokens=len(clip.tokens),
            num_sources=len(clip.group),
            fidelity=clip.fidelity,
        )
        for clip in committed_clips(out, cut)
    ]


def committed_clips(out: Path, cut: Cut | None = None) -> Iterator[TokenSet]:
    """All clips of a run folder, from whichever format it holds, with the tokens that a cut leaves.

    Raises:
        RunFolderError, SettingsError: they cannot be cut so.
    """
    if cut is not None:
        check_cut(out, read_run(out), cut)
    for manifest in read_manifests(out).values():
        for file in manifest.files[:1]:
            for clip in read_shard(out / "shards" / file.name):
                yield clip if cut is None else coarsened(clip, cut)


def preview_clips(out: Path, num_clips: int, num_frames: int, cut: Cut | None = None) -> Iterator[Preview]:
    """Clips spread over the run, each with frames spread over it."""
    total = sum(manifest.num_clips for manifest in read_manifests(out).values())
    wanted = set(np.linspace(0, total - 1, min(num_clips, total)).round().astype(int).tolist()) if total else set()
    run = read_run(out)
    frames_per_row = run["encoder"].get("frames_per_token_row", 1)
    for position, clip in enumerate(committed_clips(out, cut)):
        if position in wanted:
            count = clip.grid_thw[0]
            rows = np.unique(np.linspace(0, count - 1, min(num_frames, count)).round().astype(int))
            shown = (rows * frames_per_row).tolist()
            yield Preview(
                clip=clip,
                shown=tuple(shown),
                frames=_frames(out, run, clip, shown),
                group=clip.group.astype(np.int64).reshape(clip.grid_thw)[rows],
            )


def _frames(out: Path, run: dict[str, Any], clip: TokenSet, shown: Sequence[int]) -> NDArray[np.uint8] | None:
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
