"""A few clips of a run with their pictures: what a person looks at to see a merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.shards.manifest import read_manifests
from pipeline.shards.plan_table import Plan, read_plan
from pipeline.shards.run_folder import read_run
from pipeline.shards.scan import read_shard
from pipeline.values import ClipSpec, PictureSpec, TokenSet
from pipeline.video import open_video


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


def clip_facts(out: Path) -> list[ClipFacts]:
    """Every committed clip, in order of shard and row."""
    return [
        ClipFacts(
            clip_id=clip.clip_id,
            uri=clip.uri,
            start_ns=clip.start_ns,
            num_tokens=len(clip.tokens),
            num_sources=len(clip.group),
            fidelity=clip.fidelity,
        )
        for clip in committed_clips(out)
    ]


def committed_clips(out: Path) -> Iterator[TokenSet]:
    """All clips of a run folder, from whichever format it holds."""
    for manifest in read_manifests(out).values():
        for file in manifest.files[:1]:
            yield from read_shard(out / "shards" / file.name)


def preview_clips(out: Path, num_clips: int, num_frames: int) -> Iterator[Preview]:
    """Clips spread over the run, each with frames spread over it."""
    total = sum(manifest.num_clips for manifest in read_manifests(out).values())
    wanted = set(np.linspace(0, total - 1, min(num_clips, total)).round().astype(int).tolist()) if total else set()
    run = read_run(out)
    stored = run["deciding"]["picture"]
    colour = stored.get("alpha_background")
    picture = PictureSpec(**stored | {"alpha_background": None if colour is None else tuple(colour)})
    frames_per_row = run["encoder"].get("frames_per_token_row", 1)
    plan = read_plan(out / "plan")
    for position, clip in enumerate(committed_clips(out)):
        if position in wanted:
            count = clip.grid_thw[0]
            rows = np.unique(np.linspace(0, count - 1, min(num_frames, count)).round().astype(int))
            shown = (rows * frames_per_row).tolist()
            yield Preview(
                clip=clip,
                shown=tuple(shown),
                frames=_frames(plan, clip, shown, picture),
                group=clip.group.astype(np.int64).reshape(clip.grid_thw)[rows],
            )


def _frames(plan: Plan, clip: TokenSet, shown: Sequence[int], picture: PictureSpec) -> NDArray[np.uint8] | None:
    spec = _spec(plan, clip)
    video = plan.videos.get(clip.video_id)
    if spec is None or video is None or video.timing is None:
        return None
    # Of a model that takes even time, frames are counted as often as they are on display.
    counts = spec.frame_instants if len(clip.frame_time_ns) == sum(spec.frame_instants) else (1,) * len(spec.frame_pts)
    taken = [tick for tick, count in zip(spec.frame_pts, counts, strict=True) for _ in range(count)]
    pts = [taken[i] for i in shown if i < len(taken)]
    once = sorted(set(pts))
    few = replace(spec, frame_pts=tuple(once), frame_instants=(1,) * len(once))
    try:
        with open_video(replace(video.timing, uri=clip.uri)) as source:
            decoded = next(iter(source.decode([few], picture))).frames
            frames = decoded[[once.index(tick) for tick in pts]]
    except (DecodeError, StopIteration):
        return None
    return frames if len(frames) == len(shown) else None


def _spec(plan: Plan, clip: TokenSet) -> ClipSpec | None:
    for shard in plan.shards:
        for unit in shard.units:
            if unit.video_id == clip.video_id:
                for spec in unit.clips:
                    if spec.index == clip.clip_index:
                        return spec
    return None
