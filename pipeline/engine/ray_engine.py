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
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from pipeline.engine.job import Event, Job, ScanFailed
from pipeline.engine.ledger import MAX_ATTEMPTS, WORTH_RETRYING
from pipeline.engine.ray_actors import DecodeActor, EncodeActor, WriteActor
from pipeline.engine.ray_loop import POLL_S, Decoder, Extraction, answer_of
from pipeline.errors import DecodeError, SettingsError
from pipeline.settings import Execution
from pipeline.values import ShardPlan, VideoInfo, VideoSource, VideoTiming

LOCAL_STORE_BYTES = 2 << 30
START_TIMEOUT_S = 600.0
"""A cluster that grows on demand takes minutes to."""


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
        self.decoders = [self._new_decoder() for _ in range(self.num_decoders)]
        self.encoders: list[Any] = []
        self.writer: Any = None
        self.job: Job | None = None
        self._waiting: list[Any] = []

    def _new_decoder(self) -> Decoder:
        actor = DecodeActor.remote(self._execution.decode_memory_mb)
        return Decoder(actor, actor.ready.remote(), time.monotonic() + START_TIMEOUT_S)

    def _replace(self, decoder: Decoder) -> None:
        with contextlib.suppress(RayError):
            ray.kill(decoder.actor)
        fresh = self._new_decoder()
        decoder.actor, decoder.starting, decoder.deadline_s = fresh.actor, fresh.starting, fresh.deadline_s

    def start(self, job: Job) -> None:
        """Create the encode and write actors; they load while videos are scanned."""
        self.job = job
        on_gpu = job.device.startswith("cuda")
        gpus = job.execution.gpus or int(ray.cluster_resources().get("GPU", 0))
        count = max(1, gpus) if on_gpu else len({node["NodeID"] for node in ray.nodes() if node["Alive"]})
        self.encoders = [self.new_encoder() for _ in range(count)]
        self.num_encoders = count
        self.writer = WriteActor.remote(job)
        self._waiting = [actor.ready.remote() for actor in [*self.encoders, self.writer]]

    def new_encoder(self) -> Any:
        """Another encode actor."""
        assert self.job is not None, "start() comes first"
        on_gpu = self.job.device.startswith("cuda")
        # On cores the encoder shares them with the decoders, so it claims none for itself.
        options = {"num_gpus": 1, "num_cpus": 1} if on_gpu else {"num_cpus": 0, "scheduling_strategy": "SPREAD"}
        return EncodeActor.options(**options).remote(self.job)

    def ready(self) -> None:
        """Wait until every actor can work.

        Raises:
            ExtractError: an actor did not come up, with its own reason.
        """
        self._await(self._waiting + self._starting())

    def _starting(self) -> list[Any]:
        return [decoder.starting for decoder in self.decoders if decoder.starting is not None]

    def _await(self, answers: list[Any]) -> None:
        done, late = ray.wait(answers, num_returns=len(answers), timeout=START_TIMEOUT_S) if answers else ([], [])
        for ref in done:
            answer_of(ref)
        if late:
            raise _no_place(len(late))

    def scan(self, sources: Sequence[VideoSource]) -> Iterator[VideoInfo | ScanFailed]:
        """Scan videos on the decode actors, each in a process that may die."""
        self._await(self._starting())
        todo = deque((source, 1) for source in sources)
        running: dict[Any, tuple[Decoder, VideoSource, int]] = {}
        limit_s = self._execution.unit_timeout_s
        idle = list(self.decoders)
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
                    yield self.blame(decoder, ref, late=ref in late)
                except DecodeError as error:
                    if error.failure in WORTH_RETRYING and attempt < MAX_ATTEMPTS:
                        todo.append((source, attempt + 1))
                    else:
                        yield ScanFailed(source=source, error=error, attempts=attempt)

    def blame(self, decoder: Decoder, ref: Any, *, late: bool) -> Any:
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
        yield from Extraction(self, shards, timings).run()

    def close(self) -> None:
        """Stop the actors, and Ray where this engine started it."""
        actors = [decoder.actor for decoder in self.decoders] + self.encoders + [self.writer]
        for actor in filter(None, actors):
            with contextlib.suppress(RayError):
                ray.kill(actor)
        if self._owns_ray:
            ray.shutdown()


def _no_place(count: int) -> SettingsError:
    free = ray.available_resources()
    return SettingsError(
        f"{count} workers found no place in {START_TIMEOUT_S:.0f} s (free now: {free.get('CPU', 0):g} CPU, "
        f"{free.get('GPU', 0):g} GPU): lower --workers, or free the cluster"
    )


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
