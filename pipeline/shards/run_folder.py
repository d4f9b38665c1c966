"""A run folder: opened for one fingerprint, asked what is done, told what failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.errors import RunFolderError
from pipeline.plan.clips import plan_clips
from pipeline.plan.settled import Grid, Settled, settle
from pipeline.plan.table import Plan, read_plan
from pipeline.plan.units import Clip
from pipeline.shards.manifest import is_whole, read_manifests
from pipeline.shards.publish import publish, sweep
from pipeline.shards.tables import FAILURE_RECORDS, VIDEOS, failure_row, write_table
from pipeline.values import ClipSpec, FailedRange, PictureSpec, PlannedVideo, ShardManifest, VideoInfo

RUN_FILE = "run.json"


def open_run(out: Path, run: dict[str, Any]) -> None:
    """Make a folder ready for a run, or check that it belongs to the same one.

    Raises:
        RunFolderError: it holds another fingerprint, or something that is no run.
    """
    path = out / RUN_FILE
    if path.exists():
        held = read_run(out)
        if held["fingerprint"] != run["fingerprint"]:
            raise RunFolderError(_difference(out, held["deciding"], run["deciding"]))
        sweep(out)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"--out {out} holds something that is no run (no {RUN_FILE}): name a new or empty folder")
    try:
        with publish(path) as stream:
            stream.write(json.dumps(run, indent=1, sort_keys=True).encode())
    except OSError as error:
        raise RunFolderError(f"--out {out} cannot be written: {error}") from error


def _difference(out: Path, held: dict[str, Any], asked: dict[str, Any]) -> str:
    names = sorted(name for name in held.keys() | asked.keys() if held.get(name) != asked.get(name))
    changes = ", ".join(f"{name} {held.get(name)} there, {asked.get(name)} now" for name in names)
    return f"--out {out} holds a run with other settings ({changes}): name another folder, or ask for the same"


def read_run(out: Path) -> dict[str, Any]:
    """run.json's content.

    Raises:
        RunFolderError: the folder holds no readable run.
    """
    try:
        run: dict[str, Any] = json.loads((out / RUN_FILE).read_bytes())
        run["fingerprint"], run["deciding"], run["settings"], run["encoder"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{out} holds no run: {RUN_FILE} is missing or unreadable ({error})") from error
    return run


def grid_of(run: dict[str, Any]) -> Grid:
    """How the run cuts videos into clips."""
    return Grid(Fraction(run["settings"]["fps"]), run["settings"]["clip_frames"])


def picture_of(run: dict[str, Any]) -> PictureSpec:
    """The size and policies of the run's pictures."""
    stored = run["deciding"]["picture"]
    colour = stored.get("alpha_background")
    return PictureSpec(**stored | {"alpha_background": None if colour is None else tuple(colour)})


def clip_of_run(run: dict[str, Any], info: VideoInfo, index: int) -> ClipSpec:
    """One clip of a video, as the run cuts it."""
    grid = grid_of(run)
    (spec,) = plan_clips(
        info,
        fps=grid.fps,
        clip_frames=grid.clip_frames,
        first=index,
        count=1,
        frames=run["settings"].get("frames", "exact"),
    )
    return spec


@dataclass(frozen=True, slots=True)
class RunState:
    """What a run folder holds, without a byte of its tokens."""

    run: dict[str, Any]
    plan: Plan
    manifests: dict[str, ShardManifest]
    settled: Settled


def read_state(out: Path) -> RunState:
    """The plan, the committed shards, and what has become of each clip.

    Raises:
        RunFolderError: the folder holds no readable run.
    """
    run, plan, manifests = read_run(out), read_plan(out / "plan"), read_manifests(out)
    return RunState(run, plan, manifests, settle(plan, manifests, grid_of(run)))


def unfinished(out: Path, plan: Plan, manifests: dict[str, ShardManifest], formats: Sequence[str]) -> list[str]:
    """Shards that are still to be made: not committed, or not whole."""
    return [
        shard_id
        for shard_id in plan.shards
        if shard_id not in manifests or not is_whole(out, manifests[shard_id], formats)
    ]


def write_records(out: Path) -> RunState:
    """Write videos.parquet and failures.parquet from what is committed; both can be made again at any time."""
    state = read_state(out)
    write_table(out / "failures.parquet", failure_rows(out, state), FAILURE_RECORDS)
    write_table(out / "videos.parquet", video_rows(state), VIDEOS)
    return state


def failure_rows(out: Path, state: RunState) -> list[dict[str, Any]]:
    """The rows of failures.parquet."""
    return [failure_row(failed) | {"replay": replay_command(out, failed, state)} for failed in state.settled.failures]


def replay_command(out: Path, failed: FailedRange, state: RunState) -> str:
    """The command that does again what a failure is recorded for."""
    if failed.stage not in ("decode", "encode"):
        return f"vtm replay {out} {failed.video_id}"
    clip = grid_of(state.run).clips_in(state.plan.videos[failed.video_id], failed)[0]
    return f"vtm replay {out} {Clip(failed.video_id, clip).clip_id}"


def video_rows(state: RunState) -> list[dict[str, Any]]:
    """The rows of videos.parquet, in plan order."""
    damaged: Counter[str] = Counter()
    for manifest in state.manifests.values():
        damaged.update(manifest.damaged_frames)
    failed = {failed.video_id for failed in state.settled.failures}
    done = {video_id: len(clips) for video_id, clips in state.settled.done.items()}
    return [
        _video_row(video, done.get(video_id, 0), damaged[video_id], video_id in failed)
        for video_id, video in state.plan.videos.items()
    ]


def status_of(video: PlannedVideo, clips_done: int, *, has_failed: bool) -> str:
    """`done`, `partial` (some recorded as failed), `failed` (nothing could be had) or `open` (still to be made)."""
    if has_failed:
        return "partial" if clips_done else "failed"
    return "done" if clips_done == video.num_clips else "open"


def _video_row(video: PlannedVideo, done: int, damaged: int, has_failed: bool) -> dict[str, Any]:
    same = [name for name in VIDEOS.names if hasattr(video, name)]
    return {name: getattr(video, name) for name in same} | {
        "video_id": video.source.video_id,
        "uri": video.source.uri,
        "size_bytes": video.source.size_bytes,
        "clips": video.num_clips,
        "clips_done": done,
        "damaged_frames": damaged,
        "status": status_of(video, done, has_failed=has_failed),
        "warnings": list(video.warnings),
    }
