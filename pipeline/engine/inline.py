"""The engine in this process: threads decode ahead, the calling thread encodes and writes.

For debugging, tests, and one GPU without Ray. A decoder that hangs or crashes takes this process with it; on Ray it
takes its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Full, Queue
from typing import TypeAlias

import torch

from pipeline.encode import ClipEncoder
from pipeline.engine.job import ClipDone, Event, Job, RangeFailed, ScanFailed, ShardCommitted, StageTime, Stopwatch
from pipeline.engine.ledger import OpenShards, UnitWork
from pipeline.errors import DecodeError
from pipeline.shards.manifest import write_shard
from pipeline.values import DecodedClip, FailedRange, ShardPlan, TokenSet, VideoInfo, VideoSource, VideoTiming
from pipeline.video import open_video, scan_video

QUEUED_CLIPS = 4


@dataclass(frozen=True, slots=True)
class _Decoded:
    shard_id: str
    uri: str
    clip: DecodedClip
    time: StageTime


@dataclass(frozen=True, slots=True)
class _GaveUp:
    shard_id: str
    failed: FailedRange


Results: TypeAlias = "Queue[_Decoded | _GaveUp | BaseException]"


class InlineEngine:
    """Everything in one process."""

    def __init__(self, workers: int | None = None) -> None:
        self.num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.num_decoders = workers or self.num_cores
        self.num_encoders = 1
        self._stop = threading.Event()
        self._decode_clocks: set[int] = set()
        self._job: Job | None = None
        self._encoder: ClipEncoder | None = None

    def scan(self, sources: Sequence[VideoSource]) -> Iterator[VideoInfo | ScanFailed]:
        """Scan videos one after the other."""
        for source in sources:
            try:
                yield scan_video(source)
            except DecodeError as error:
                yield ScanFailed(source=source, error=error)

    def start(self, job: Job) -> None:
        """Load the encoder."""
        self._job = job
        self._encoder = ClipEncoder(job.recipe, job.encoder, job.device)

    def extract(self, shards: Sequence[ShardPlan], timings: dict[str, VideoTiming]) -> Iterator[Event]:
        """Make shards in order; decode threads run ahead by at most `QUEUED_CLIPS` clips."""
        assert self._job is not None, "start() comes first"
        open_shards: OpenShards[TokenSet] = OpenShards(shards)
        works = [
            UnitWork(shard_id=shard.shard_id, unit=unit, uri=timings[unit.video_id].uri)
            for shard in shards
            for unit in shard.units
        ]
        results: Results = Queue(maxsize=QUEUED_CLIPS)
        committed: set[str] = set()
        outstanding = {shard.shard_id for shard in shards}
        with ThreadPoolExecutor(self.num_decoders, thread_name_prefix="decode") as pool:
            try:
                for work in works:
                    pool.submit(self._decode_unit, work, timings[work.unit.video_id], results)
                while committed != outstanding:
                    yield from self._take(results.get(), open_shards, committed)
            finally:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                while not results.empty():
                    results.get_nowait()

    def ready(self) -> None:
        """Nothing to wait for: `start` loads."""

    def close(self) -> None:
        """Stop the decode threads."""
        self._stop.set()
        self._encoder = None

    def _take(
        self, item: _Decoded | _GaveUp | BaseException, shards: OpenShards[TokenSet], committed: set[str]
    ) -> Iterator[Event]:
        assert self._job is not None
        assert self._encoder is not None
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, _GaveUp):
            shards.add_failure(item.shard_id, item.failed)
            yield RangeFailed(item.failed)
        else:
            watch, decoding_s = Stopwatch(), self._decoding_cpu_s()
            tokens = self._encoder.encode(item.clip, item.uri)
            taken = watch.lap()
            decoded_s = self._decoding_cpu_s() - decoding_s
            shards.add_clip(item.shard_id, tokens.clip_id, tokens)
            yield ClipDone(
                video_id=tokens.video_id,
                clip_index=tokens.clip_index,
                video_ns=tokens.end_ns - tokens.start_ns,
                damaged_frames=tokens.damaged_frames,
                decode=item.time,
                encode=StageTime(max(0.0, taken.cpu_s - decoded_s), taken.wall_s),
                patches=len(tokens.group),
                encoded_patches=tokens.encoded_patches,
            )
        if item.shard_id not in committed and shards.is_complete(item.shard_id):
            watch = Stopwatch()
            clips, failures = shards.take(item.shard_id)
            job = self._job
            manifest = write_shard(job.out, item.shard_id, clips, failures, job.run, job.execution.format)
            committed.add(item.shard_id)
            yield ShardCommitted(manifest, watch.lap())

    def _decode_unit(self, work: UnitWork, timing: VideoTiming, results: Results) -> None:
        """Decode one unit, again where that may help, on a thread of the pool."""
        assert self._job is not None
        # The setting is per thread: resizing stays on this one, while the encoder keeps its own.
        torch.set_num_threads(1)
        self._decode_clocks.add(time.pthread_getcpuclockid(threading.get_ident()))
        todo: UnitWork | None = work
        try:
            while todo is not None and not self._stop.is_set():
                try:
                    self._decode_rest(todo, timing, results)
                    return
                except _InterruptedError as interrupted:
                    todo, failed = interrupted.work.after_failure(interrupted.error)
                if failed is not None:
                    self._put(results, _GaveUp(work.shard_id, failed))
        except BaseException as error:
            self._put(results, error)

    def _decode_rest(self, work: UnitWork, timing: VideoTiming, results: Results) -> None:
        assert self._job is not None
        clock_s, wall_s = time.thread_time(), time.perf_counter()
        try:
            with open_video(timing) as video:
                for clip in video.decode(work.clips, self._job.picture, motion=self._job.wants_motion):
                    taken = StageTime(time.thread_time() - clock_s, time.perf_counter() - wall_s)
                    self._put(results, _Decoded(work.shard_id, work.uri, clip, taken))
                    work = work.after_clip()
                    clock_s, wall_s = time.thread_time(), time.perf_counter()
        except DecodeError as error:
            raise _InterruptedError(work, error) from error

    def _put(self, results: Results, item: _Decoded | _GaveUp | BaseException) -> None:
        while not self._stop.is_set():
            try:
                results.put(item, timeout=0.2)
                return
            except Full:
                continue

    def _decoding_cpu_s(self) -> float:
        return sum(time.clock_gettime(clock) for clock in self._decode_clocks)


class _InterruptedError(Exception):
    """Carries how far a unit came when its decoding failed."""

    def __init__(self, work: UnitWork, error: DecodeError) -> None:
        super().__init__(str(error))
        self.work, self.error = work, error
