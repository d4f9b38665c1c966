"""A run from inputs to records: find, plan, carry out, account. Resumes whatever the run folder already holds."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pipeline.describe import describe_encoder, pick_device, picture_json
from pipeline.engine.job import ClipDone, Engine, Event, Job, RangeFailed, ScanFailed, ShardCommitted
from pipeline.planning import failed_video, pack_shards, plan_video
from pipeline.run_description import RunDescription
from pipeline.settings import Execution, Recipe
from pipeline.shards.manifest import read_manifests
from pipeline.shards.plan_table import Plan, append_batch, read_plan
from pipeline.shards.run_folder import open_run, unfinished, write_records
from pipeline.sources import Found, find_videos
from pipeline.summary import RunSummary, Tally
from pipeline.values import FailedRange, PlannedVideo, ShardPlan, Unit, VideoSource, VideoTiming

BATCH_VIDEOS = 256
"""Videos scanned before the plan is written: what a kill during planning can cost."""
RECORDED_PACKAGES = ("vtm-pipeline", "av", "numpy", "pyarrow", "torch", "webdataset")


class Listener(Protocol):
    """Who is told how a run goes."""

    def note(self, text: str) -> None:
        """A line for a person."""

    def begin(self, total_ns: int) -> None:
        """So much video is ahead."""

    def event(self, event: Event) -> None:
        """Something came to an end."""


def extract(inputs: Sequence[str], out: Path, recipe: Recipe, execution: Execution, listener: Listener) -> RunSummary:
    """Extract every video that the inputs name into a run folder.

    Args:
        inputs: Files, folders, globs, list files, addresses.
        out: The run folder; a new one, or one with the same fingerprint.
        recipe: What decides the bytes.
        execution: How to go about it.
        listener: Told of progress.

    Raises:
        InputError: the inputs name nothing.
        SettingsError: a setting cannot be carried out.
        RunFolderError: the folder belongs to another run.
        EncodeError: the encoder failed on good frames; what is committed stands.
    """
    began_s = time.perf_counter()
    found = find_videos(inputs)
    job = prepare(out, recipe, execution)
    plan = read_plan(out / "plan")
    new = [v for v in found.videos if _is_to_be_scanned(plan.videos.get(v.video_id), execution.retry_failed)]
    lost = [failed for failed in found.unreadable if failed.video_id not in plan.videos]
    tally = Tally()
    if lost:
        append_batch(out / "plan", [_unread(failed) for failed in lost], [])
        plan = read_plan(out / "plan")
    if new or unfinished(out, plan, read_manifests(out), execution.format, execution.retry_failed):
        engine = make_engine(execution)
        if job.encoder.architecture is not None:
            listener.note(f"{job.encoder.name}: run by transformers ({job.encoder.architecture}), merged after it")
        try:
            engine.start(job)
            for batch in scan_in_batches(engine, new, job, found):
                append_batch(out / "plan", *batch)
                for failed in (failed for video in batch[0] for failed in video.failures):
                    listener.note(f"failed: {failed.uri} [{failed.failure}] {failed.message}")
                listener.note(f"planned {len(batch[0])} videos, {sum(shard.num_clips for shard in batch[1])} clips")
            plan = read_plan(out / "plan")
            pending = unfinished(out, plan, read_manifests(out), execution.format, execution.retry_failed)
            if pending:
                engine.ready()
                tally = _carry_out(
                    engine, pending, _timings(plan, found), listener, Tally.begun(began_s, engine, job.device)
                )
        finally:
            engine.close()
    manifests = read_manifests(out)
    failures = write_records(out, plan, manifests)
    asked = {source.video_id for source in found.videos} | {failed.video_id for failed in found.unreadable}
    return RunSummary(
        out=out,
        videos=len(plan.videos),
        clips=sum(manifest.num_clips for manifest in manifests.values()),
        bytes_written=sum(file.size_bytes for manifest in manifests.values() for file in manifest.files),
        failures=tuple(failed for failed in failures if failed.video_id in asked),
        tally=tally,
    )


def prepare(out: Path, recipe: Recipe, execution: Execution) -> Job:
    """Describe the run and open its folder for it.

    Raises:
        SettingsError, RunFolderError: as `extract` says.
    """
    device = pick_device(execution.gpus)
    encoder, picture = describe_encoder(recipe, device)
    packages = RECORDED_PACKAGES if encoder.architecture is None else (*RECORDED_PACKAGES, "transformers")
    versions = {name: importlib.metadata.version(name) for name in packages}
    run = RunDescription(recipe=recipe, encoder=encoder, picture=picture_json(picture), versions=versions).to_json()
    open_run(out, run)
    return Job(
        out=out.resolve(),
        run=run,
        recipe=recipe,
        execution=execution,
        encoder=encoder,
        picture=picture,
        device=device,
    )


def make_engine(execution: Execution) -> Engine:
    """The engine that the settings name; Ray is imported only when it is used.

    Raises:
        SettingsError: the cluster cannot be reached.
    """
    if execution.engine == "inline":
        from pipeline.engine.inline import InlineEngine

        return InlineEngine(execution.workers)
    from pipeline.engine.ray_engine import RayEngine

    return RayEngine(execution)


def _is_to_be_scanned(planned: PlannedVideo | None, retry_failed: bool) -> bool:
    return planned is None or (retry_failed and bool(planned.failures) and not planned.num_clips)


def scan_in_batches(
    engine: Engine, sources: Sequence[VideoSource], job: Job, found: Found
) -> Iterator[tuple[list[PlannedVideo], list[ShardPlan]]]:
    """Scan videos and plan them; within a batch they stand in the order of the inputs, whoever was scanned first."""
    recipe, execution = job.recipe, job.execution
    copies: dict[str, list[str]] = {}
    for uri, video_id in found.copies:
        copies.setdefault(video_id, []).append(f"{uri} has the same content")
    for start in range(0, len(sources), BATCH_VIDEOS):
        part = sources[start : start + BATCH_VIDEOS]
        planned: dict[str, tuple[PlannedVideo, list[Unit]]] = {}
        for item in engine.scan(part):
            if isinstance(item, ScanFailed):
                planned[item.source.video_id] = failed_video(item.source, item.error, item.attempts), []
            else:
                planned[item.source.video_id] = plan_video(
                    item,
                    fps=recipe.fps,
                    clip_frames=recipe.clip_frames,
                    unit_clips=execution.unit_clips,
                    frames=recipe.frames,
                )
        videos, units = [], []
        for source in part:
            video, its_units = planned[source.video_id]
            videos.append(replace(video, warnings=(*video.warnings, *copies.get(source.video_id, []))))
            units += its_units
        yield videos, list(pack_shards(units, execution.shard_clips))


def _unread(failed: FailedRange) -> PlannedVideo:
    return PlannedVideo(source=VideoSource(video_id=failed.video_id, uri=failed.uri, size_bytes=-1), failures=(failed,))


def _timings(plan: Plan, found: Found) -> dict[str, VideoTiming]:
    """What decoding needs of each video, at the address where it was found today."""
    today = {source.video_id: source.uri for source in found.videos}
    timings = {}
    for video_id, video in plan.videos.items():
        if video.timing is not None:
            timings[video_id] = replace(video.timing, uri=today.get(video_id, video.source.uri))
    return timings


def _carry_out(
    engine: Engine,
    shards: Sequence[ShardPlan],
    timings: dict[str, VideoTiming],
    listener: Listener,
    tally: Tally,
) -> Tally:
    listener.begin(sum(clip.end_ns - clip.start_ns for s in shards for unit in s.units for clip in unit.clips))
    start_s = time.perf_counter()
    for event in engine.extract(shards, timings):
        if isinstance(event, ClipDone):
            tally = tally.with_clip(event)
        elif isinstance(event, ShardCommitted):
            tally = tally.with_shard(event)
        elif isinstance(event, RangeFailed):
            tally = tally.with_failure()
        listener.event(event)
    return tally.finished(time.perf_counter() - start_s)
