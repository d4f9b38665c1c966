"""A run folder: opened for one fingerprint, asked what is done, told what failed."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipeline.errors import RunFolderError, StoreError
from pipeline.failed_range import FailedRange
from pipeline.plan.clips import plan_clips
from pipeline.plan.inputs import labelled_inputs
from pipeline.plan.plan import Plan, read_plan
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.settled import Grid, Settled, covers, settle
from pipeline.plan.units import Clip
from pipeline.shards.commit_record import ShardManifest
from pipeline.shards.commits import gather, read_manifests
from pipeline.shards.manifest import has_a_whole_file, is_whole
from pipeline.shards.tables import FAILURE_RECORDS, VIDEOS, failure_row, write_table
from pipeline.store import Store, TakenError, Where, open_store
from pipeline.values import ClipSpec, PictureSpec, SmartSize
from pipeline.video_info import VideoInfo

RUN_FILE = "run.json"


def open_run(out: Where, run: dict[str, Any]) -> None:
    """Make a place ready for a run, or check that it belongs to the same one.

    Raises:
        RunFolderError: it holds another fingerprint, or something that is no run.
        StoreError: it cannot be written.
    """
    store = open_store(out)
    try:
        if store.entry(RUN_FILE) is None:
            if not store.is_empty() and store.entry(RUN_FILE) is None:
                raise RunFolderError(
                    f"--out {store.address} holds something that is no run (no {RUN_FILE}): name a new or empty folder"
                )
            store.make()
            store.put(RUN_FILE, json.dumps(run, indent=1, sort_keys=True).encode(), only_if_absent=True)
            return
        store.sweep()
    except TakenError:
        # Another driver came first; what it opened is looked at below.
        pass
    except OSError as error:
        raise StoreError(f"--out {store.address} cannot be written: {error}") from error
    held = read_run(store)
    if held["fingerprint"] != run["fingerprint"]:
        raise RunFolderError(_difference(store.address, held["fingerprinted"], run["fingerprinted"]))


def _difference(out: str, held: dict[str, Any], asked: dict[str, Any]) -> str:
    names = sorted(name for name in held.keys() | asked.keys() if held.get(name) != asked.get(name))
    changes = ", ".join(f"{name} {held.get(name)} there, {asked.get(name)} now" for name in names)
    return f"--out {out} holds a run with other settings ({changes}): name another folder, or ask for the same"


def read_run(out: Where) -> dict[str, Any]:
    """run.json's content.

    Raises:
        RunFolderError: there is no readable run, or one of another version of this package.
    """
    store = open_store(out)
    try:
        run: dict[str, Any] = json.loads(store.get(RUN_FILE))
        run["fingerprint"], run["fingerprinted"], run["settings"], run["encoder"]
    except KeyError as error:
        raise RunFolderError(
            f"{store.address} was written by another version of this package ({RUN_FILE} lacks {error}): "
            "read it with that version, or extract into a new folder"
        ) from error
    except FileNotFoundError as error:
        raise RunFolderError(f"{store.address} holds no run: there is no {RUN_FILE}") from error
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"{store.address} holds no run: {RUN_FILE} is unreadable ({error})") from error
    return run


def grid_of(run: dict[str, Any]) -> Grid:
    """How the run cuts videos into clips."""
    return Grid(Fraction(run["settings"]["fps"]), run["settings"]["clip_frames"])


def picture_of(run: dict[str, Any]) -> PictureSpec:
    """The size and policies of the run's pictures."""
    stored = run["fingerprinted"]["picture"]
    colour, smart = stored.get("alpha_background"), stored.get("smart")
    read = {
        "alpha_background": None if colour is None else tuple(colour),
        "smart": None if smart is None else SmartSize(**smart),
    }
    return PictureSpec(**stored | read)


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
    """What a run holds, without a byte of its tokens."""

    store: Store
    run: dict[str, Any]
    plan: Plan
    manifests: Mapping[str, ShardManifest]
    settled: Settled


def read_state(out: Where, *, broken: list[str] | None = None) -> RunState:
    """The plan, the committed shards, and what has become of each clip.

    Args:
        out: Where the run lives.
        broken: Takes the names of tables and records that cannot be read; without it they are an error.

    Raises:
        RunFolderError: there is no readable run.
    """
    store = open_store(out)
    run = read_run(store)
    with uncollected():
        # What is committed is read before the plan: it is planned first, and so found there.
        manifests = read_manifests(store, broken=broken)
        plan = read_plan(store, broken=broken)
        return RunState(store, run, plan, manifests, settle(plan, manifests, grid_of(run)))


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector of cycles from going through millions of new objects again and again: it finds none there."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Shards that lack something."""

    to_extract: tuple[str, ...]
    """Not committed, or no file of theirs is whole."""
    to_copy: tuple[str, ...]
    """Committed, with their tokens in one format and not in another that is asked for or was written."""


def unfinished(state: RunState, sizes: Mapping[str, int], formats: Sequence[str]) -> Unfinished:
    """What is still to be made, by the sizes of the files that are there."""
    to_extract, to_copy = [], []
    for shard_id in state.plan.shards:
        manifest = state.manifests.get(shard_id)
        if (
            manifest is None
            or (manifest.num_clips and not has_a_whole_file(sizes, manifest))
            or not covers(state.plan, shard_id, manifest, grid_of(state.run))
        ):
            to_extract.append(shard_id)
        elif not is_whole(sizes, manifest, formats):
            to_copy.append(shard_id)
    return Unfinished(tuple(to_extract), tuple(to_copy))


def write_records(out: Where) -> RunState:
    """Write videos.parquet and failures.parquet from what is committed; both can be made again at any time."""
    store = open_store(out)
    gather(store)
    state = read_state(store)
    write_table(store, "failures.parquet", failure_rows(state), FAILURE_RECORDS)
    write_table(store, "videos.parquet", video_rows(state), VIDEOS)
    return state


def failure_rows(state: RunState) -> list[dict[str, Any]]:
    """The rows of failures.parquet."""
    return [failure_row(failed) | {"replay": replay_command(failed, state)} for failed in state.settled.failures]


def replay_command(failed: FailedRange, state: RunState) -> str:
    """The command that does again what a failure is recorded for."""
    out = state.store.address
    if failed.stage not in ("decode", "encode"):
        return f"vtm replay {out} {failed.video_id}"
    clip = grid_of(state.run).clips_in(state.plan.videos[failed.video_id], failed)[0]
    return f"vtm replay {out} {Clip(failed.video_id, clip).clip_id}"


def video_rows(state: RunState) -> Iterator[dict[str, Any]]:
    """The rows of videos.parquet, in plan order."""
    damaged: Counter[str] = Counter()
    for manifest in state.manifests.values():
        damaged.update(manifest.damaged_frames)
    failed = {failed.video_id for failed in state.settled.failures}
    videos = state.plan.videos
    done = state.settled.done.counts()[videos.row >= 0]
    labels = labels_of(state)
    for (video_id, video), clips_done in zip(videos.items(), done.tolist(), strict=True):
        row = _video_row(video, clips_done, damaged[video_id], video_id in failed)
        yield row | {"labels": labels.get(video_id)}


def labels_of(state: RunState) -> dict[str, str]:
    """What the user's lists say of each video: a JSON list with an object a row."""
    said: dict[str, list[Any]] = {}
    # A table that cannot be read is for `vtm verify` to say; it does not end a run.
    for named in labelled_inputs(state.store, broken=[]):
        number = state.plan.addresses.number(named.input.uri, named.input.stamp)
        if number is not None:
            row = json.loads(named.labels)
            rows = said.setdefault(state.plan.videos.names[number], [])
            if row not in rows:
                rows.append(row)
    return {video_id: json.dumps(rows, sort_keys=True) for video_id, rows in said.items()}


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
