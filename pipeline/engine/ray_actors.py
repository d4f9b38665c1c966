"""The three kinds of worker as Ray actors: the work of `worker_types`, in a process that may die."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray

from pipeline.encode.devices import BrokenDeviceError
from pipeline.engine.decode_worker import Decoded, DecodeWorker
from pipeline.engine.encode_worker import Encoded, EncodeWorker
from pipeline.engine.job import ClipDone, Job, ShardCommitted
from pipeline.engine.log_buffer import LogBuffer, forward_logs
from pipeline.engine.problem import Problem, problem_of
from pipeline.engine.worker_types import WorkerTypes
from pipeline.engine.write_worker import WriteWorker
from pipeline.errors import SettingsError, StoreError
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import Clip, Unit

GROUPS = {"watch": 1, "ask": 1}
ENCODE_GROUPS = GROUPS | {"launch": 2}
"""Calls that are answered while another one is running, each in a thread of its own."""
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Answer:
    """The small result of a call. Frames and tokens are a second object, which stays on its node."""

    value: Any = None
    problem: Problem | None = None
    refusal: str | None = None
    """Why the worker cannot work here at all."""
    failure: str | None = None
    """Why the run cannot go on."""
    notes: tuple[str, ...] = ()
    """What the worker logged meanwhile."""
    num_bytes: int = 0


class _Actor:
    """Common to all actors: a worker, and the answers of its calls."""

    worker: DecodeWorker | EncodeWorker | WriteWorker

    def __init__(self) -> None:
        self.log_buffer = LogBuffer()
        forward_logs(self.log_buffer.lines.append)

    def start(self) -> Answer:
        """Load what the work needs."""
        try:
            self.worker.start()
        except SettingsError as error:
            return Answer(refusal=str(error))
        return Answer(value=os.getpid(), notes=self.log_buffer.take())

    @ray.method(concurrency_group="watch")
    def watch(self) -> None:
        """Never returns: its caller learns at once that the process is gone."""
        threading.Event().wait()

    @ray.method(concurrency_group="ask")
    def steps(self) -> int:
        """How far the present call is."""
        return self.worker.steps.count

    def failed(self, error: BaseException) -> Answer:
        """The answer of a call that ended in an error."""
        return Answer(problem=problem_of(error), notes=self.log_buffer.take())


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=GROUPS)
class DecodeActor(_Actor):
    """Scans videos and decodes clips."""

    def __init__(self, job: Job, types: WorkerTypes) -> None:
        super().__init__()
        self.worker: DecodeWorker = types.decode(job)
        self._memory_mb = job.execution.decode_memory_mb

    def start(self) -> Answer:
        """Load what the work needs. What it holds then, a CUDA context included, is not counted."""
        answer = super().start()
        limit_memory(self._memory_mb)
        return answer

    def scan(self, source: Input) -> Answer:
        """Scan one video."""
        try:
            video: PlannedVideo = self.worker.scan(source)
        except StoreError as error:
            return Answer(failure=str(error))
        except Exception as error:
            return self.failed(error)
        return Answer(value=video, notes=self.log_buffer.take())

    @ray.method(num_returns=2)
    def decode(self, clip: Clip, uri: str, unit: Unit) -> tuple[Answer, Decoded | None]:
        """Decode one clip."""
        try:
            decoded = self.worker.decode(clip, uri, unit)
        except BrokenDeviceError:
            # No further call can succeed in this process; the scheduler starts another.
            os._exit(1)
        except Exception as error:
            return self.failed(error), None
        return Answer(num_bytes=decoded.num_bytes, notes=self.log_buffer.take()), decoded


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=ENCODE_GROUPS)
class EncodeActor(_Actor):
    """Holds the encoder."""

    def __init__(self, job: Job, types: WorkerTypes, num_threads: int) -> None:
        super().__init__()
        import torch

        # Ray sets OMP_NUM_THREADS from num_cpus, which is 0 for an actor that shares the cores.
        torch.set_num_threads(num_threads)
        self.worker: EncodeWorker = types.encode(job)

    @ray.method(num_returns=2)
    def encode(self, decoded: Decoded, uri: str) -> tuple[Answer, Encoded | None]:
        """Encode one clip."""
        return self._encode(decoded, uri)

    @ray.method(num_returns=2, concurrency_group="launch")
    def encode_overlapping(self, decoded: Decoded, uri: str) -> tuple[Answer, Encoded | None]:
        """Encode one clip while another may still be on the device."""
        return self._encode(decoded, uri)

    def _encode(self, decoded: Decoded, uri: str) -> tuple[Answer, Encoded | None]:
        try:
            record, encoded = self.worker.encode(decoded, uri)
        except BrokenDeviceError:
            # No further call can succeed in this process; the scheduler starts another.
            os._exit(1)
        except Exception as error:
            return self.failed(error), None
        done: ClipDone = record
        return Answer(value=done, num_bytes=encoded.num_bytes, notes=self.log_buffer.take()), encoded


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=GROUPS)
class WriteActor(_Actor):
    """Writes and commits shards."""

    def __init__(self, job: Job, types: WorkerTypes) -> None:
        super().__init__()
        self.worker: WriteWorker = types.write(job)

    def write(self, shard_id: str, failures: Sequence[FailedRange], *clips: Encoded) -> Answer:
        """Write one shard of clips in plan order."""
        try:
            committed: ShardCommitted = self.worker.write(shard_id, clips, failures)
        except Exception as error:
            return self.failed(error)
        return Answer(value=committed, notes=self.log_buffer.take())


def limit_memory(memory_mb: int) -> None:
    """Bound the private memory that this process may add to what it holds now."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    held_kb = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmData:"))
    limit = held_kb * 1024 + memory_mb * (1 << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
