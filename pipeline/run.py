"""A run from inputs to records: find, plan, carry out, account. Resumes whatever the run folder already holds."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.driver import Listener, RunDriver
from pipeline.encode.describe import describe_encoder, picture_json
from pipeline.encode.devices import Device
from pipeline.engine.cluster import Cluster, open_cluster
from pipeline.engine.drive import drive
from pipeline.engine.job import Job, code_sha256
from pipeline.engine.placement import ResourceRequest
from pipeline.engine.policy import Limits, Policy
from pipeline.engine.scheduler import Scheduler
from pipeline.errors import StoreError
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input, VideoSource
from pipeline.inputs.sources import find_named
from pipeline.owed import owed_work, sort_inputs
from pipeline.plan.inputs import Listing, read_inputs, store_inputs
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.table import PlanRow, append_rows
from pipeline.recorder import recording
from pipeline.run_description import RunDescription
from pipeline.settings import Execution, Recipe
from pipeline.shards.manifest import shard_sizes
from pipeline.shards.mend import copy_formats
from pipeline.shards.run_folder import open_run, read_state, unfinished, write_records
from pipeline.store import Store, Where, open_store
from pipeline.store.lease import Lease, leased
from pipeline.summary import RunSummary

RECORDED_PACKAGES = ("vtm-pipeline", "av", "numpy", "pyarrow", "torch", "webdataset")


def extract(inputs: Sequence[str], out: Where, recipe: Recipe, execution: Execution, listener: Listener) -> RunSummary:
    """Extract every video that the inputs name into a run folder.

    Args:
        inputs: Files, folders, globs, list files, addresses.
        out: Where the run lives: a folder, or a prefix of an object store; a new one, or one with the same
            fingerprint.
        recipe: What decides the bytes.
        execution: How to go about it.
        listener: Told of progress.

    Raises:
        InputError: the inputs name nothing.
        SettingsError: a setting cannot be carried out.
        RunFolderError: the folder belongs to another run.
        EngineError: the run cannot go on; what is committed stands.
        StoreError: the run cannot be written.
    """
    return extract_listed(Listing(find_named(inputs)), open_store(out), recipe, execution, listener)


def extract_listed(
    listing: Listing | None,
    store: Store,
    recipe: Recipe,
    execution: Execution,
    listener: Listener,
) -> RunSummary:
    """As `extract`, of inputs that are found already; None: of all that the run was ever asked for."""
    began_s = time.perf_counter()
    with open_cluster(execution, recipe.decoder) as cluster:
        job = prepare(store, recipe, execution, cluster.device)
        with store_errors(store), leased(store, listener.note) as lease:
            if listing is None:
                listing = Listing(read_inputs(store))
            else:
                store_inputs(store, listing)
            driver = open_driver(listing.once(), job, listener, began_s)
            stopped = carry_out(job, cluster, driver, listener, lease) if driver.has_work else None
            return summarise(job, listing, driver, stopped)


@contextmanager
def store_errors(store: Store) -> Iterator[None]:
    """A store that cannot be had ends the run with one line.

    Raises:
        StoreError: for any OSError of the driver itself.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"{store.address} cannot be used: {error}") from error


def prepare(store: Store, recipe: Recipe, execution: Execution, device: Device) -> Job:
    """Describe the run and open its store for it.

    Raises:
        SettingsError, RunFolderError: as `extract` says.
    """
    encoder, picture = describe_encoder(recipe, device)
    packages = RECORDED_PACKAGES if encoder.architecture is None else (*RECORDED_PACKAGES, "transformers")
    versions = {name: importlib.metadata.version(name) for name in packages}
    run = RunDescription(recipe=recipe, encoder=encoder, picture=picture_json(picture), versions=versions).to_json()
    open_run(store, run)
    return Job(
        out=store,
        run=run,
        recipe=recipe,
        execution=execution,
        encoder=encoder,
        picture=picture,
        code_sha256=code_sha256(),
    )


def open_driver(found: Iterable[Input | FailedRange], job: Job, listener: Listener, began_s: float) -> RunDriver:
    """Compare what was found with what the run folder holds."""
    execution = job.execution
    state = read_state(job.out)
    inputs = sort_inputs(found, state, retry_failed=execution.retry_failed)
    for failed in inputs.unreadable:
        listener.failed(failed)
    if inputs.unreadable:
        append_rows(job.out, [PlanRow(_unread(failed)) for failed in inputs.unreadable])
    open_shards = unfinished(state, shard_sizes(job.out), execution.format)
    spoilt = copy_formats(state, open_shards.to_copy, execution.format, listener.note)
    owed = owed_work(state, [*open_shards.to_extract, *spoilt], retry_failed=execution.retry_failed)
    return RunDriver(
        job.out,
        state.plan,
        unknown=inputs.unknown,
        owed=owed,
        located=inputs.located,
        listener=listener,
        began_s=began_s,
    )


def carry_out(job: Job, cluster: Cluster, driver: RunDriver, listener: Listener, lease: Lease) -> str | None:
    """Do the work. Returns what ended it early, if anything did.

    Raises:
        SettingsError, EngineError: as `extract` says.
    """
    if job.encoder.architecture is not None:
        listener.note(f"{job.encoder.name}: run by transformers ({job.encoder.architecture}), merged after it")
    scheduler = Scheduler(policy_of(job, cluster.request), driver.plan.videos)
    executor = cluster.executor(job)
    driver.watch(lease)
    driver.stop_after(job.execution.limit)
    try:
        with recording(job.out):
            stopped = drive(scheduler, executor, driver)
    finally:
        executor.close()
    pool = scheduler.pool
    driver.close(
        num_cores=executor.num_cores,
        num_decoders=pool.count("decode"),
        num_encoders=pool.count("encode"),
        shared_cores=job.encoder.device == "cpu",
    )
    return stopped or driver.stopped


def policy_of(job: Job, request: ResourceRequest) -> Policy:
    """What the scheduler is told of a run."""
    recipe, execution = job.recipe, job.execution
    silent_s, nodes_s = execution.unit_timeout_s, max(Limits().nodes_s, execution.wait_for_nodes_s)
    return Policy(
        request=request,
        fps=recipe.fps,
        clip_frames=recipe.clip_frames,
        clip_bytes=job.clip_bytes,
        # With a limit every clip is committed by itself, so that the run can end after any of them.
        unit_clips=1 if execution.limit else execution.unit_clips,
        shard_clips=1 if execution.limit else execution.shard_clips,
        encode_calls_at_once=job.encode_calls_at_once,
        limits=Limits(scan_s=silent_s, decode_s=silent_s, encode_s=execution.encode_timeout_s, nodes_s=nodes_s),
    )


def summarise(job: Job, listing: Listing, driver: RunDriver, stopped: str | None) -> RunSummary:
    """Bring the records up to date, and say what the folder holds and what this run took."""
    state = write_records(job.out)
    uris = listing.naming(failed.uri for failed in state.settled.failures if _is_unread(failed))
    return RunSummary(
        out=job.out.address,
        videos=len(state.plan.videos),
        clips=state.settled.done.total,
        bytes_written=sum(file.size_bytes for manifest in state.manifests.values() for file in manifest.files),
        failures=tuple(
            f for f in state.settled.failures if driver.has_seen(f.video_id) or (_is_unread(f) and f.uri in uris)
        ),
        tally=driver.tally,
        stopped=stopped,
        is_limited=driver.is_limited,
    )


def _is_unread(failed: FailedRange) -> bool:
    """Whether it is the failure of an input that could not be read."""
    return failed.video_id == Input(uri=failed.uri).unread_id


def _unread(failed: FailedRange) -> PlannedVideo:
    return PlannedVideo(source=VideoSource(video_id=failed.video_id, uri=failed.uri, size_bytes=-1), failures=(failed,))
