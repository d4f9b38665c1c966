"""The engine on Ray: decode, encode and write actors, and a bounded loop that owns every decision.

One unit is in flight per decode actor, so the blame for a death is exact. Frames go from decode to encode actors, and
token sets from encode to write actors, as object references; only small records come through the driver.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from pipeline.engine.job import ClipDone, Event, Job, RangeFailed, ScanFailed, ShardCommitted
from pipeline.engine.ledger import MAX_ATTEMPTS, WORTH_RETRYING, OpenShards, UnitWork
from pipeline.engine.ray_actors import DecodeActor, EncodeActor, WriteActor
from pipeline.errors import DecodeError, EncodeError, ExtractError, SettingsError
from pipeline.settings import Execution
from pipeline.values import ShardPlan, VideoInfo, VideoSource, VideoTiming

LOCAL_STORE_BYTES = 2 << 30
QUEUED_PER_ENCODER = 2
"""Clips handed to an encode actor at once: one at work, one waiting, so that it never idles between two."""
START_TIMEOUT_S = 600.0
"""A cluster that grows on demand takes minutes to."""
POLL_S = 1.0


@dataclass(slots=True)
class _Decoder:
    """A decode actor and the unit it is at."""

    actor: Any
    starting: Any
    """The actor's answer that it is up; None once it came. Until then no deadline of a unit counts."""
    deadline_s: float
    """Of the start, then of what it is at."""
    work: UnitWork | None = None
    clips: Any = None
    """The actor's stream of (frames, record) pairs."""

    def allow(self, seconds: float) -> None:
        """Give it so long from now, or from when it is up."""
        if self.starting is None:
            self.deadline_s = time.monotonic() + seconds

    def is_late(self, seconds: float) -> bool:
        """Whether it is past its deadline; a start that has ended begins the `seconds` of its work."""
        if self.starting is not None and ray.wait([self.starting], timeout=0)[0]:
            self.starting = None
            self.allow(seconds)
        return time.monotonic() > self.deadline_s


@dataclass(frozen=True, slots=True)
class _Encoding:
    """A clip on its way through an encode actor."""

    encoder: int
    work: UnitWork
    clip_id: str
    frames: Any
    tokens: Any
    attempts: int = 1


class RayEngine:
    """Actors on a local Ray or on a cluster."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            _connect(execution.address)
        self.num_cores = int(ray.cluster_resources().get("CPU", 1))
        self.num_decoders = execution.workers or self.num_cores
        self.num_encoders = 1
        self._decoders = [self._new_decoder() for _ in range(self.num_decoders)]
        self._encoders: list[Any] = []
        self._writer: Any = None
        self._job: Job | None = None
        self._waiting: list[Any] = []

    def _new_decoder(self) -> _Decoder:
        actor = DecodeActor.remote(self._execution.decode_memory_mb)
        return _Decoder(actor, actor.ready.remote(), time.monotonic() + START_TIMEOUT_S)

    def _replace(self, decoder: _Decoder) -> None:
        with contextlib.suppress(RayError):
            ray.kill(decoder.actor)
        fresh = self._new_decoder()
        decoder.actor, decoder.starting, decoder.deadline_s = fresh.actor, fresh.starting, fresh.deadline_s

    def start(self, job: Job) -> None:
        """Create the encode and write actors; they load while videos are scanned."""
        self._job = job
        on_gpu = job.device.startswith("cuda")
        gpus = job.execution.gpus or int(ray.cluster_resources().get("GPU", 0))
        count = max(1, gpus) if on_gpu else len({node["NodeID"] for node in ray.nodes() if node["Alive"]})
        self._encoders = [self._new_encoder() for _ in range(count)]
        self.num_encoders = count
        self._writer = WriteActor.remote(job)
        self._waiting = [actor.ready.remote() for actor in [*self._encoders, self._writer]]

    def _new_encoder(self) -> Any:
        assert self._job is not None, "start() comes first"
        on_gpu = self._job.device.startswith("cuda")
        # On cores the encoder shares them with the decoders, so it claims none for itself.
        options = {"num_gpus": 1, "num_cpus": 1} if on_gpu else {"num_cpus": 0, "scheduling_strategy": "SPREAD"}
        return EncodeActor.options(**options).remote(self._job)

    def ready(self) -> None:
        """Wait until every actor can work.

        Raises:
            ExtractError: an actor did not come up, with its own reason.
        """
        self._await(self._waiting + self._starting())

    def _starting(self) -> list[Any]:
        return [decoder.starting for decoder in self._decoders if decoder.starting is not None]

    def _await(self, answers: list[Any]) -> None:
        done, late = ray.wait(answers, num_returns=len(answers), timeout=START_TIMEOUT_S) if answers else ([], [])
        for ref in done:
            _get_from_encoder(ref)
        if late:
            raise _no_place(len(late))

    def scan(self, sources: Sequence[VideoSource]) -> Iterator[VideoInfo | ScanFailed]:
        """Scan videos on the decode actors, each in a process that may die."""
        self._await(self._starting())
        todo = deque((source, 1) for source in sources)
        running: dict[Any, tuple[_Decoder, VideoSource, int]] = {}
        limit_s = self._execution.unit_timeout_s
        idle = list(self._decoders)
        while todo or running:
            while todo and idle:
                source, attempt = todo.popleft()
                decoder = idle.pop()
                decoder.allow(limit_s)
                running[decoder.actor.scan.remote(source)] = (decoder, source, attempt)
            done, _ = ray.wait(list(running), timeout=POLL_S)
            late = [ref for ref, (decoder, *_) in running.items() if ref not in done and decoder.is_late(limit_s)]
            for ref in done + late:
                decoder, source, attempt = running.pop(ref)
                idle.append(decoder)
                try:
                    yield self._blame(decoder, ref, late=ref in late)
                except DecodeError as error:
                    if error.failure in WORTH_RETRYING and attempt < MAX_ATTEMPTS:
                        todo.append((source, attempt + 1))
                    else:
                        yield ScanFailed(source=source, error=error, attempts=attempt)

    def _blame(self, decoder: _Decoder, ref: Any, *, late: bool) -> Any:
        """The value of a decode actor's answer, its failure as a DecodeError; a dead or late actor is replaced."""
        if late and decoder.starting is not None:
            raise _no_place(1)
        if late:
            self._replace(decoder)
            limit_s = self._execution.unit_timeout_s
            raise DecodeError("timeout", f"the decoder delivered nothing for {limit_s:.0f} s and was stopped")
        try:
            return ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, DecodeError):
                raise error.cause from None
            raise DecodeError("crash", f"the decoder failed: {type(error.cause).__name__}: {error.cause}") from error
        except OutOfMemoryError as error:
            self._replace(decoder)
            raise DecodeError("out_of_memory", "the decoder's node ran out of memory") from error
        except RayError as error:
            self._replace(decoder)
            raise DecodeError("crash", "the decoder's process died") from error

    def extract(self, shards: Sequence[ShardPlan], timings: dict[str, VideoTiming]) -> Iterator[Event]:
        """Make shards in order, keeping every actor busy and the bytes in flight bounded."""
        yield from _Extraction(self, shards, timings).run()

    def close(self) -> None:
        """Stop the actors, and Ray where this engine started it."""
        actors = [decoder.actor for decoder in self._decoders] + self._encoders + [self._writer]
        for actor in filter(None, actors):
            with contextlib.suppress(RayError):
                ray.kill(actor)
        if self._owns_ray:
            ray.shutdown()


class _Extraction:
    """The loop's state: what is to be decoded, encoded and written."""

    def __init__(self, engine: RayEngine, shards: Sequence[ShardPlan], timings: dict[str, VideoTiming]) -> None:
        assert engine._job is not None, "start() comes first"
        self.engine, self.job, self.timings = engine, engine._job, timings
        self.limit_s = self.job.execution.unit_timeout_s
        self.plans = {shard.shard_id: shard for shard in shards}
        self.open = OpenShards[Any](shards)
        self.todo: deque[UnitWork] = deque()
        for shard in shards:
            self._queue(shard)
        self.decoded: deque[tuple[UnitWork, str, Any, int]] = deque()
        self.encoding: dict[Any, _Encoding] = {}
        self.writing: dict[Any, str] = {}

    def _queue(self, shard: ShardPlan) -> None:
        for unit in shard.units:
            self.todo.append(UnitWork(shard_id=shard.shard_id, unit=unit, uri=self.timings[unit.video_id].uri))

    def run(self) -> Iterator[Event]:
        """Until nothing is left."""
        while self.todo or self.decoded or self.encoding or self.writing or any(d.work for d in self.engine._decoders):
            self._dispatch()
            streams = {id(d.clips): d for d in self.engine._decoders if d.work and not self.decoded}
            waiting = [d.clips for d in streams.values()] + list(self.encoding) + list(self.writing)
            done, _ = ray.wait(waiting, timeout=POLL_S, fetch_local=False) if waiting else ([], [])
            for ref in done:
                if ref in self.encoding:
                    yield from self._encoded(ref)
                elif ref in self.writing:
                    yield from self._written(ref)
                else:
                    yield from self._delivered(streams[id(ref)])
            for decoder in streams.values():
                if decoder.work and decoder.is_late(self.limit_s):
                    yield from self._delivered(decoder, late=True)

    def _dispatch(self) -> None:
        for decoder in self.engine._decoders:
            if decoder.work is None and self.todo:
                self._start_unit(decoder, self.todo.popleft())
        for index in range(len(self.engine._encoders)):
            busy = sum(item.encoder == index for item in self.encoding.values())
            while self.decoded and busy < QUEUED_PER_ENCODER:
                self._start_encoding(index, *self.decoded.popleft())
                busy += 1

    def _start_unit(self, decoder: _Decoder, work: UnitWork) -> None:
        decoder.work = work
        decoder.clips = decoder.actor.decode.remote(
            self.timings[work.unit.video_id], work.clips, self.job.picture, self.job.wants_motion
        )
        decoder.allow(self.limit_s)

    def _delivered(self, decoder: _Decoder, *, late: bool = False) -> Iterator[Event]:
        """Take a clip from a decoder, or learn that it is through, or why it cannot go on."""
        work = decoder.work
        assert work is not None
        try:
            frames = None if late else next(decoder.clips)
            # A stream that ends after half a pair died there: the half is the error.
            record = next(decoder.clips, frames) if frames is not None else None
            self.engine._blame(decoder, record, late=late)
        except StopIteration:
            decoder.work = decoder.clips = None
        except DecodeError as error:
            decoder.work = decoder.clips = None
            outcome = work.after_failure(error)
            if isinstance(outcome, UnitWork):
                self.todo.append(outcome)
            else:
                self.open.add_failure(work.shard_id, outcome)
                yield RangeFailed(outcome)
                self._write_if_complete(work.shard_id)
        else:
            self.decoded.append((work, work.clips[0].clip_id, frames, 1))
            decoder.work = work.after_clip()
            decoder.allow(self.limit_s)

    def _start_encoding(self, index: int, work: UnitWork, clip_id: str, frames: Any, attempts: int) -> None:
        record, tokens = self.engine._encoders[index].encode.remote(frames, work.uri)
        self.encoding[record] = _Encoding(index, work, clip_id, frames, tokens, attempts)

    def _encoded(self, ref: Any) -> Iterator[Event]:
        item = self.encoding.pop(ref)
        try:
            record: ClipDone = _get_from_encoder(ref)
        except RayActorError as error:
            if item.attempts >= MAX_ATTEMPTS:
                raise EncodeError(f"clip {item.clip_id}: the encoder's process died {MAX_ATTEMPTS} times") from error
            self._replace_encoder(item.encoder)
            self.decoded.appendleft((item.work, item.clip_id, item.frames, item.attempts + 1))
        except ObjectLostError:
            self._redo_unit(item.work)
        else:
            self.open.add_clip(item.work.shard_id, item.clip_id, item.tokens)
            yield record
            self._write_if_complete(item.work.shard_id)

    def _replace_encoder(self, index: int) -> None:
        """A new actor in a dead one's place; the clips queued there are not to blame."""
        self.engine._encoders[index] = self.engine._new_encoder()
        for ref in [ref for ref, item in self.encoding.items() if item.encoder == index]:
            item = self.encoding.pop(ref)
            self.decoded.appendleft((item.work, item.clip_id, item.frames, item.attempts))

    def _redo_unit(self, work: UnitWork) -> None:
        """Frames were lost with their node: decode that clip again, alone."""
        shard, unit = self.plans[work.shard_id], work.unit
        single = type(unit)(unit_id=unit.unit_id, video_id=unit.video_id, clips=work.clips[:1])
        self.todo.appendleft(UnitWork(shard_id=shard.shard_id, unit=single, uri=work.uri))

    def _write_if_complete(self, shard_id: str) -> None:
        if self.open.is_complete(shard_id):
            clips, failures = self.open.take(shard_id)
            self.writing[self.engine._writer.write.remote(shard_id, failures, *clips)] = shard_id

    def _written(self, ref: Any) -> Iterator[Event]:
        shard_id = self.writing.pop(ref)
        try:
            committed: ShardCommitted = _get_from_encoder(ref)
        except ObjectLostError:
            self._queue(self.plans[shard_id])
        else:
            yield committed


def _no_place(count: int) -> SettingsError:
    free = ray.available_resources()
    return SettingsError(
        f"{count} workers found no place in {START_TIMEOUT_S:.0f} s (free now: {free.get('CPU', 0):g} CPU, "
        f"{free.get('GPU', 0):g} GPU): lower --workers, or free the cluster"
    )


def _get_from_encoder(ref: Any) -> Any:
    """The value of an encode or write actor's answer; its own error as it was raised there."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, ExtractError | OSError):
            raise error.cause from None
        raise


def _connect(address: str | None) -> None:
    """Join the cluster that `address` or RAY_ADDRESS names, else start Ray on this machine."""
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(include_dashboard=False, object_store_memory=LOCAL_STORE_BYTES, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"--address {address}" if address else "Ray on this machine"
        raise SettingsError(f"{where} cannot be reached: {str(error).splitlines()[0]}") from error
