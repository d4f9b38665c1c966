"""What an engine is given, and what it reports."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import DecodeError
from pipeline.run_description import EncoderDescription
from pipeline.settings import Execution, Recipe
from pipeline.values import FailedRange, PictureSpec, ShardManifest, ShardPlan, VideoInfo, VideoSource, VideoTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything a worker needs beside its units; travels to every worker once."""

    out: Path
    run: dict[str, Any]
    """run.json's content."""
    recipe: Recipe
    execution: Execution
    encoder: EncoderDescription
    picture: PictureSpec
    device: str

    @property
    def wants_motion(self) -> bool:
        """Whether decoding has to deliver motion."""
        return self.recipe.reads_motion


@dataclass(frozen=True, slots=True)
class StageTime:
    """What a piece of work took."""

    cpu_s: float = 0.0
    wall_s: float = 0.0

    def __add__(self, other: StageTime) -> StageTime:
        return StageTime(self.cpu_s + other.cpu_s, self.wall_s + other.wall_s)


class Stopwatch:
    """CPU seconds of this process and wall seconds since it was started or read."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def lap(self) -> StageTime:
        """Time since the last lap."""
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        taken = StageTime(cpu_s - self._cpu_s, wall_s - self._wall_s)
        self._cpu_s, self._wall_s = cpu_s, wall_s
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFailed:
    """A video that cannot be scanned."""

    source: VideoSource
    error: DecodeError
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipDone:
    """A clip was encoded; it is durable once its shard is committed."""

    video_id: str
    clip_index: int
    video_ns: int
    damaged_frames: int
    decode: StageTime
    encode: StageTime
    patches: int = 0
    """N of the clip."""
    encoded_patches: int | None = None
    """How many of them were encoded, where unchanged ones were not."""


@dataclass(frozen=True, slots=True)
class RangeFailed:
    """A range of a video is given up."""

    failed: FailedRange


@dataclass(frozen=True, slots=True)
class ShardCommitted:
    """A shard and its manifest are in the run folder."""

    manifest: ShardManifest
    write: StageTime


Event = ClipDone | RangeFailed | ShardCommitted


class Engine(Protocol):
    """Where the work runs. Every engine gives the same bytes."""

    num_cores: int
    """Cores that the stages share, all nodes together."""
    num_decoders: int
    num_encoders: int

    def scan(self, sources: Sequence[VideoSource]) -> Iterator[VideoInfo | ScanFailed]:
        """Scan videos, in any order."""

    def start(self, job: Job) -> None:
        """Begin to bring up what encodes and writes; scanning may go on meanwhile."""

    def ready(self) -> None:
        """Wait until every worker is up, weights loaded; what follows counts as work."""

    def extract(self, shards: Sequence[ShardPlan], timings: dict[str, VideoTiming]) -> Iterator[Event]:
        """Make shards; every clip of every unit ends in a shard or in a failed range."""

    def close(self) -> None:
        """Let go of everything."""
