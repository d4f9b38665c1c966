"""The executor in this process: a thread a worker.

A decoder that crashes ends this process, and one that hangs keeps its thread; on Ray each has its own process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

import torch

from pipeline.encode.devices import BrokenDeviceError
from pipeline.engine import commands, events
from pipeline.engine.commands import WorkCommand, WorkerKind
from pipeline.engine.decode_worker import Decoded, DecodeWorker
from pipeline.engine.encode_worker import Encoded, EncodeWorker
from pipeline.engine.events import Event, Subject
from pipeline.engine.executor import Observed
from pipeline.engine.job import Job, Record
from pipeline.engine.problem import problem_of
from pipeline.engine.worker_types import REAL, WorkerTypes
from pipeline.engine.write_worker import WriteWorker
from pipeline.errors import SettingsError, StoreError
from pipeline.plan.units import Clip

NODE = "this machine"
STORE_BYTES = 2 << 30
"""Of a store that this process does not have: it bounds the frames that wait for the encoder."""

Call: TypeAlias = commands.Scan | commands.DecodeClip | commands.EncodeClip | commands.WriteShard
AnyWorker: TypeAlias = DecodeWorker | EncodeWorker | WriteWorker


class _WorkerThread:
    """A worker's thread and its calls."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Call | None] = SimpleQueue()
        self.worker: AnyWorker | None = None
        self.is_abandoned = False
        """Whether the worker was given up: its later results are ignored."""


class InlineExecutor:
    """Everything in one process."""

    def __init__(self, job: Job, types: WorkerTypes = REAL) -> None:
        self._job, self._types = job, types
        self.num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._encode_threads = torch.get_num_threads()
        self._happened: SimpleQueue[Event | Record] = SimpleQueue()
        self._threads: dict[int, _WorkerThread] = {}
        self._frames: dict[Clip, Decoded] = {}
        self._tokens: dict[Clip, Encoded] = {}
        self._decode_clocks: set[int] = set()
        self.tell(events.NodeUp(NODE, self.num_cores, 0, STORE_BYTES))

    def tell(self, event: Event) -> None:
        """Have `wait` return an event from outside."""
        self._happened.put(event)

    def wait(self, timeout_s: float) -> list[Event | Record]:
        """Events in their order."""
        found: list[Event | Record] = []
        try:
            found.append(self._happened.get(timeout=timeout_s))
            while True:
                found.append(self._happened.get_nowait())
        except Empty:
            return found

    def carry_out(self, command: WorkCommand) -> None:
        """Hand a call to its worker's thread, or carry out a command that takes no time."""
        if isinstance(command, commands.StartWorker):
            thread = self._threads[command.worker] = _WorkerThread()
            name = f"{command.kind}-{command.worker}"
            threading.Thread(target=self._work, args=(command, thread), name=name, daemon=True).start()
        elif isinstance(command, commands.KillWorker):
            self._leave(command.worker)
        elif isinstance(command, commands.AskProgress):
            thread = self._threads[command.worker]
            if thread.worker is not None:
                self.tell(events.Progressed(command.worker, thread.worker.steps.count))
        elif isinstance(command, commands.Forget):
            self._frames.pop(command.clip, None)
            self._tokens.pop(command.clip, None)
        else:
            self._threads[command.worker].calls.put(command)

    def observe(self, item: Observed) -> None:
        """There are no metrics here."""

    def close(self) -> None:
        """Stop the threads; one that is in the middle of a call ends after it."""
        for number in list(self._threads):
            self._leave(number)

    def _leave(self, number: int) -> None:
        thread = self._threads.pop(number)
        thread.is_abandoned = True
        thread.calls.put(None)

    def _work(self, command: commands.StartWorker, thread: _WorkerThread) -> None:
        """A worker's thread."""

        def tell(item: Event | Record) -> None:
            if not thread.is_abandoned:
                self._happened.put(item)

        try:
            worker = thread.worker = self._make(command.kind)
            worker.start()
            tell(events.WorkerReady(command.worker))
            beside = self._job.encode_calls_at_once - 1 if command.kind == "encode" else 0
            for _ in range(beside):
                threading.Thread(target=self._serve, args=(command.worker, thread, tell), daemon=True).start()
            self._serve(command.worker, thread, tell)
        except SettingsError as error:
            tell(events.WorkerRefused(command.worker, str(error)))
        except BaseException as error:
            problem = problem_of(error)
            tell(events.WorkerDied(command.worker, problem.failure, problem.message))
        finally:
            if thread.worker is not None:
                thread.worker.close()

    def _serve(self, number: int, thread: _WorkerThread, tell: Callable[[Event | Record], None]) -> None:
        """Take calls until there are no more."""
        assert thread.worker is not None
        while (call := thread.calls.get()) is not None and not thread.is_abandoned:
            self._do(number, thread.worker, call, tell)
        # There may be another thread that waits for a call.
        thread.calls.put(None)

    def _make(self, kind: WorkerKind) -> AnyWorker:
        if kind == "decode":
            self._decode_clocks.add(time.pthread_getcpuclockid(threading.get_ident()))
            return self._types.decode(self._job, time.thread_time)
        if kind == "encode":
            # The number is a thread's own. When it is first read, it becomes the one that any thread set last, and
            # decoders set 1: so it is read before it is set.
            torch.get_num_threads()
            torch.set_num_threads(self._encode_threads)
            return self._types.encode(self._job, self._encoding_cpu_s)
        return self._types.write(self._job, time.thread_time)

    def _encoding_cpu_s(self) -> float:
        """CPU seconds of this process but for its decoders': the encoder has threads of its own."""
        return time.process_time() - sum(time.clock_gettime(clock) for clock in self._decode_clocks)

    def _do(self, number: int, worker: AnyWorker, call: Call, tell: Callable[[Event | Record], None]) -> None:
        """Run one call and report its result."""
        try:
            for item in self._results(number, worker, call):
                tell(item)
        except (StoreError, BrokenDeviceError) as error:
            # On Ray a worker whose device is lost is replaced; here it would take this process.
            tell(events.RunFailed(str(error)))
        except Exception as error:
            problem = problem_of(error)
            tell(events.CallFailed(number, subject_of(call), problem.failure, problem.message))

    def _results(self, number: int, worker: Any, call: Call) -> list[Event | Record]:
        if isinstance(call, commands.Scan):
            return [events.Scanned(number, call.input, worker.scan(call.input))]
        if isinstance(call, commands.DecodeClip):
            decoded = self._frames[call.clip] = worker.decode(call.clip, call.uri, call.unit)
            return [events.ClipDecoded(number, call.clip, decoded.num_bytes)]
        if isinstance(call, commands.EncodeClip):
            record, encoded = worker.encode(self._frames[call.clip], call.uri)
            self._tokens[call.clip] = encoded
            self._frames.pop(call.clip, None)
            return [record, events.ClipEncoded(number, call.clip, encoded.num_bytes)]
        clips = [self._tokens[clip] for clip in call.clips]
        return [worker.write(call.shard_id, clips, call.failures), events.ShardWritten(number, call.shard_id)]


def subject_of(call: Call) -> Subject:
    """What a call is about."""
    if isinstance(call, commands.Scan):
        return call.input
    return call.shard_id if isinstance(call, commands.WriteShard) else call.clip
