"""The three kinds of worker process on Ray. Each loads what it needs and knows nothing of the others."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from pipeline.engine.job import ClipDone, Job, ShardCommitted, StageTime, Stopwatch
from pipeline.errors import DecodeError
from pipeline.values import (
    ClipSpec,
    DecodedClip,
    FailedRange,
    PictureSpec,
    TokenSet,
    VideoInfo,
    VideoSource,
    VideoTiming,
)

if TYPE_CHECKING:
    from pipeline.video import OpenVideo

BUFFERED_OBJECTS = 4
"""Two clips, each frames and record, may wait unread before a decode actor pauses."""


@ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)
class DecodeActor:
    """Scans videos and decodes units, in a process that may die."""

    def __init__(self, memory_mb: int) -> None:
        import torch

        torch.set_num_threads(1)
        self._video: OpenVideo | None = None
        self._uri = ""
        _limit_memory(memory_mb)

    def ready(self) -> bool:
        """Answers when the process is up."""
        from pipeline import video

        return bool(video)

    def scan(self, source: VideoSource) -> VideoInfo:
        """Scan one video; what `pipeline.video.scan_video` raises comes back as it is."""
        from pipeline.video import scan_video

        try:
            return scan_video(source)
        except MemoryError as error:
            raise DecodeError("out_of_memory", "scanning needs more memory than a decode worker may have") from error

    @ray.method(num_returns="streaming", _generator_backpressure_num_objects=BUFFERED_OBJECTS)
    def decode(
        self, timing: VideoTiming, clips: Sequence[ClipSpec], picture: PictureSpec, motion: bool
    ) -> Iterator[tuple[DecodedClip, StageTime] | int]:
        """Yield, for each clip, its frames with the time they took, then its index as a small record."""
        watch = Stopwatch()
        try:
            for clip in self._open(timing).decode(clips, picture, motion=motion):
                yield clip, watch.lap()
                yield clip.spec.index
                watch.lap()
        except MemoryError as error:
            raise DecodeError("out_of_memory", "decoding needs more memory than a decode worker may have") from error

    def _open(self, timing: VideoTiming) -> OpenVideo:
        """The open video, kept between units: consecutive units are mostly of one video."""
        from pipeline.video import open_video

        if self._video is None or self._uri != timing.uri:
            if self._video is not None:
                self._video.__exit__(None, None, None)
            self._video, self._uri = open_video(timing).__enter__(), timing.uri
        return self._video


def _limit_memory(memory_mb: int) -> None:
    """Bound the private memory this process may add to what it holds now."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    held_kb = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmData:"))
    limit = held_kb * 1024 + memory_mb * (1 << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


@ray.remote(max_restarts=0, max_task_retries=0)
class EncodeActor:
    """Holds the encoder."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._encoder: Any = None

    def ready(self) -> bool:
        """Load the encoder; its errors come back as they were raised."""
        self._load()
        return True

    def _load(self) -> Any:
        if self._encoder is None:
            import torch

            from pipeline.encode import ClipEncoder

            # Ray sets OMP_NUM_THREADS from num_cpus, which is 0 for an actor that shares the cores.
            torch.set_num_threads(len(os.sched_getaffinity(0)))
            self._encoder = ClipEncoder(self._job.recipe, self._job.encoder, self._job.device)
        return self._encoder

    @ray.method(num_returns=2)
    def encode(self, decoded: tuple[DecodedClip, StageTime], uri: str) -> tuple[ClipDone, TokenSet]:
        """Encode one clip; the record is small, the tokens stay where they are until they are written."""
        clip, decode_time = decoded
        watch = Stopwatch()
        tokens = self._load().encode(clip, uri)
        record = ClipDone(
            video_id=tokens.video_id,
            clip_index=tokens.clip_index,
            video_ns=tokens.end_ns - tokens.start_ns,
            damaged_frames=tokens.damaged_frames,
            decode=decode_time,
            encode=watch.lap(),
            patches=len(tokens.group),
            encoded_patches=tokens.encoded_patches,
        )
        return record, tokens


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=3)
class WriteActor:
    """Writes and commits shards; twice gives the same bytes under the same name, so it may be retried."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def ready(self) -> bool:
        """Answers when the process is up."""
        from pipeline.shards import manifest

        return bool(manifest)

    def write(self, shard_id: str, failures: Sequence[FailedRange], *clips: TokenSet) -> ShardCommitted:
        """Write one shard of clips in plan order."""
        from pipeline.shards.manifest import write_shard

        watch = Stopwatch()
        job = self._job
        manifest = write_shard(job.out, shard_id, clips, failures, job.run, job.execution.format)
        return ShardCommitted(manifest, watch.lap())
