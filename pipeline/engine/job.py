"""What a worker gets when it starts, and the records that it returns."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from pipeline.run_description import EncoderDescription
from pipeline.settings import Execution, Recipe
from pipeline.shards.commit_record import ShardManifest
from pipeline.store import Store
from pipeline.values import PictureSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything a worker needs except its calls; sent to every worker once."""

    out: Store
    run: dict[str, Any]
    """run.json's content."""
    recipe: Recipe
    execution: Execution
    encoder: EncoderDescription
    picture: PictureSpec
    code_sha256: str
    """Of the code that the driver runs; a worker with other code refuses to work."""

    @property
    def wants_motion(self) -> bool:
        """Whether decoding has to deliver motion."""
        return self.recipe.reads_motion

    @property
    def encode_calls_at_once(self) -> int:
        """Clips an encoder is at: on a GPU the next one is launched while the host still waits for the last."""
        return 2 if self.encoder.device == "cuda" else 1

    @property
    def clip_bytes(self) -> int:
        """Most that the frames of a full clip take."""
        smart = self.picture.smart
        pixels = self.picture.crop_height_px * self.picture.crop_width_px if smart is None else smart.max_pixels
        return self.recipe.clip_frames * pixels * 3


@cache
def code_sha256() -> str:
    """Hash of this project's code as it is on this machine, but for the commands."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for name in ("vtm", "pipeline") for path in (root / name).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class StageTime:
    """CPU and wall time of a piece of work."""

    cpu_s: float = 0.0
    wall_s: float = 0.0

    def __add__(self, other: StageTime) -> StageTime:
        return StageTime(self.cpu_s + other.cpu_s, self.wall_s + other.wall_s)


class Stopwatch:
    """CPU and wall seconds since it was started or read.

    Args:
        cpu_clock: Seconds of CPU time; by default of this process.
    """

    def __init__(self, cpu_clock: Callable[[], float] = time.process_time) -> None:
        self._cpu_clock = cpu_clock
        self._cpu_s, self._wall_s = cpu_clock(), time.perf_counter()

    @property
    def started_s(self) -> float:
        """When the present lap began, by `time.perf_counter`."""
        return self._wall_s

    def lap(self) -> StageTime:
        """Time since the last lap."""
        cpu_s, wall_s = self._cpu_clock(), time.perf_counter()
        taken = StageTime(max(0.0, cpu_s - self._cpu_s), wall_s - self._wall_s)
        self._cpu_s, self._wall_s = cpu_s, wall_s
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipDone:
    """A clip was encoded; it is durable once its shard is committed."""

    video_id: str
    clip_index: int
    video_ns: int
    damaged_frames: int
    decode: StageTime
    encode: StageTime
    tokens: int = 0
    """M of the clip."""
    patches: int = 0
    """N of the clip."""
    encoded_patches: int | None = None
    """How many of them were encoded, where unchanged ones were not."""


@dataclass(frozen=True, slots=True)
class ShardCommitted:
    """A shard and its manifest are in the run folder."""

    manifest: ShardManifest
    write: StageTime


@dataclass(frozen=True, slots=True)
class Note:
    """A log line of a worker."""

    text: str


Record: TypeAlias = ClipDone | ShardCommitted | Note
