"""A run folder: opened for one fingerprint, asked what is done, told what failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import RunFolderError
from pipeline.shards.manifest import is_whole, read_manifests
from pipeline.shards.plan_table import Plan, read_plan
from pipeline.shards.publish import publish, sweep
from pipeline.shards.tables import FAILURES, VIDEOS, failure_row, write_table
from pipeline.values import FailedRange, PlannedVideo, ShardManifest, ShardPlan

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


def read_folder(out: Path) -> tuple[Plan, dict[str, ShardManifest]]:
    """The plan and the committed shards."""
    return read_plan(out / "plan"), read_manifests(out)


def unfinished(
    out: Path, plan: Plan, manifests: dict[str, ShardManifest], formats: Sequence[str], retry_failed: bool
) -> list[ShardPlan]:
    """Shards that are still to be made: not committed, not whole, or holding failures that are to be tried again."""

    def done(shard: ShardPlan) -> bool:
        manifest = manifests.get(shard.shard_id)
        if manifest is None or (retry_failed and manifest.failures):
            return False
        return is_whole(out, manifest, formats)

    return [shard for shard in plan.shards if not done(shard)]


def all_failures(plan: Plan, manifests: Iterable[ShardManifest]) -> list[FailedRange]:
    """Every recorded failure, of scans and of shards, in order of video and time."""
    found = [failed for video in plan.videos.values() for failed in video.failures]
    found += [failed for manifest in manifests for failed in manifest.failures]
    order = {video_id: i for i, video_id in enumerate(plan.videos)}
    return sorted(found, key=lambda failed: (order.get(failed.video_id, len(order)), failed.start_ns))


def write_records(out: Path, plan: Plan, manifests: dict[str, ShardManifest]) -> list[FailedRange]:
    """Write videos.parquet and failures.parquet from what is committed; both can be made again at any time."""
    rows, failures = video_rows(plan, manifests)
    write_table(out / "failures.parquet", [failure_row(failed) for failed in failures], FAILURES)
    write_table(out / "videos.parquet", rows, VIDEOS)
    return failures


def video_rows(plan: Plan, manifests: dict[str, ShardManifest]) -> tuple[list[dict[str, Any]], list[FailedRange]]:
    """The rows of videos.parquet, in plan order, and all failures."""
    failures = all_failures(plan, manifests.values())
    done = clips_done(plan, manifests)
    damaged: Counter[str] = Counter()
    for manifest in manifests.values():
        damaged.update(manifest.damaged_frames)
    rows = [_video_row(video, done[video_id], damaged[video_id], failures) for video_id, video in plan.videos.items()]
    return rows, failures


def clips_done(plan: Plan, manifests: dict[str, ShardManifest]) -> Counter[str]:
    """Clips committed, by video."""
    done: Counter[str] = Counter()
    for shard in plan.shards:
        manifest = manifests.get(shard.shard_id)
        if manifest is None:
            continue
        failed = [(f.video_id, f.start_ns, f.end_ns) for f in manifest.failures]
        for unit in shard.units:
            lost = [(start, end) for video_id, start, end in failed if video_id == unit.video_id]
            done[unit.video_id] += sum(not any(s <= c.start_ns < e for s, e in lost) for c in unit.clips)
    return done


def status_of(video: PlannedVideo, clips_done: int, failures: Sequence[FailedRange]) -> str:
    """`done`, `partial` (some recorded as failed), `failed` (nothing could be had) or `open` (still to be made)."""
    failed = any(f.video_id == video.source.video_id for f in failures)
    if failed:
        return "partial" if clips_done else "failed"
    return "done" if clips_done == video.num_clips else "open"


def _video_row(video: PlannedVideo, done: int, damaged: int, failures: Sequence[FailedRange]) -> dict[str, Any]:
    same = [name for name in VIDEOS.names if hasattr(video, name)]
    return {name: getattr(video, name) for name in same} | {
        "video_id": video.source.video_id,
        "uri": video.source.uri,
        "size_bytes": video.source.size_bytes,
        "clips": video.num_clips,
        "clips_done": done,
        "damaged_frames": damaged,
        "status": status_of(video, done, failures),
        "warnings": list(video.warnings),
    }
