"""What the scheduler wants done: values of numbers and names, without Ray, clocks or files.

A unit is three numbers (video, first clip, number of clips). A worker runs its calls in the order of the commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import Clip, ShardUnit, Unit

WorkerKind = Literal["decode", "encode", "write"]


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a worker on a node, holding this share of its cores and GPUs."""

    worker: int
    kind: WorkerKind
    node: str
    cores: float
    gpus: float


@dataclass(frozen=True, slots=True)
class KillWorker:
    """End a worker's process; nothing more is heard of it."""

    worker: int


@dataclass(frozen=True, slots=True)
class AskProgress:
    """Ask a worker how far its present call is."""

    worker: int


@dataclass(frozen=True, slots=True)
class FindInputs:
    """Name up to so many further inputs, or hand out work that earlier runs planned."""

    count: int


@dataclass(frozen=True, slots=True)
class AppendPlan:
    """Add a video, and the shards of its clips, to the stored plan; at the latest before one of the shards is written.

    A video that is planned already gains the units.
    """

    video: PlannedVideo
    units: tuple[ShardUnit, ...]


@dataclass(frozen=True, slots=True)
class ReportCopy:
    """This input has the same content as a video that is planned already."""

    input: Input
    video: PlannedVideo


@dataclass(frozen=True, slots=True)
class Scan:
    """Find out what an input holds, and store its index."""

    worker: int
    input: Input


@dataclass(frozen=True, slots=True)
class DecodeClip:
    """Decode one clip of a unit, of which the next clips will be asked for too."""

    worker: int
    clip: Clip
    uri: str
    unit: Unit


@dataclass(frozen=True, slots=True)
class EncodeClip:
    """Turn a clip's frames into tokens."""

    worker: int
    clip: Clip
    uri: str


@dataclass(frozen=True, slots=True)
class WriteShard:
    """Write and commit a shard: these clips in this order, and what was lost of it."""

    worker: int
    shard_id: str
    clips: tuple[Clip, ...]
    failures: tuple[FailedRange, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop the frames and tokens of a clip."""

    clip: Clip


@dataclass(frozen=True, slots=True)
class ReportFailure:
    """A range of a video is given up."""

    failed: FailedRange
    worker: int | None = None
    """Who had it last."""


@dataclass(frozen=True, slots=True)
class Notify:
    """A line for the person who runs this."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do; with an error, the run cannot go on."""

    error: str | None = None
    is_usage: bool = False
    """Whether the error is one of settings."""


WorkCommand: TypeAlias = StartWorker | KillWorker | AskProgress | Scan | DecodeClip | EncodeClip | WriteShard | Forget
"""What an executor carries out."""
DriverCommand: TypeAlias = FindInputs | AppendPlan | ReportCopy | ReportFailure | Notify | Finish
"""What the driver does itself."""
Command: TypeAlias = WorkCommand | DriverCommand
