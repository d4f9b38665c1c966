"""The scheduler's events and commands: values of numbers and names, without Ray, clocks or files.

A unit is three numbers (video, first clip, number of clips). A worker runs its calls in the order of the commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pipeline.errors import FailureClass
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import Clip, ShardUnit, Unit

WorkerKind = Literal["decode", "encode", "write"]


Subject: TypeAlias = Input | Clip | str
"""What a call is about: an input to scan, a clip to decode or encode, a shard id to write."""


# Events.


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A node can take workers."""

    node: str
    cores: int
    gpus: int
    store_bytes: int
    """Size of its object store."""


@dataclass(frozen=True, slots=True)
class NodeDown:
    """A node is gone, with its workers and objects."""

    node: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A video that an earlier run planned, and its shards that are still to be made, if any.

    All such events of a shard come one after another, with no other between them: a shard may hold clips of several
    videos, and must not be taken for complete before all of them are known.
    """

    video: PlannedVideo
    units: tuple[ShardUnit, ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """Clips that an earlier run recorded as failed and that are to be tried again, in a further shard."""

    video: PlannedVideo
    units: tuple[Unit, ...]
    generation: int
    """How many times these clips have been planned before."""


@dataclass(frozen=True, slots=True)
class InputsFound:
    """Answer to `FindInputs`."""

    inputs: tuple[Input, ...]
    is_last: bool


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker has started and loaded what it needs."""

    worker: int


@dataclass(frozen=True, slots=True)
class WorkerRefused:
    """A worker says that it cannot work here, and would say so again: another version, an unusable device."""

    worker: int
    message: str


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A worker's process ended, and its calls with it."""

    worker: int
    failure: FailureClass
    message: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """Answer to `AskProgress`: how many steps the worker's present call has made."""

    worker: int
    steps: int


@dataclass(frozen=True, slots=True)
class Scanned:
    """A video was scanned; its index is stored where every worker finds it."""

    worker: int
    input: Input
    video: PlannedVideo


@dataclass(frozen=True, slots=True)
class ClipDecoded:
    """The frames of a clip lie in the object store of the worker's node."""

    worker: int
    clip: Clip
    num_bytes: int


@dataclass(frozen=True, slots=True)
class ClipEncoded:
    """The tokens of a clip lie in the object store of the worker's node; its frames are not needed any more."""

    worker: int
    clip: Clip
    num_bytes: int


@dataclass(frozen=True, slots=True)
class ShardWritten:
    """A shard is committed."""

    worker: int
    shard_id: str


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A call ended in an error that its worker survived."""

    worker: int
    subject: Subject
    failure: FailureClass
    message: str


@dataclass(frozen=True, slots=True)
class InputLost:
    """A call could not run, because an object that it reads is lost. `clips` are those whose object is gone."""

    worker: int
    subject: Subject
    clips: tuple[Clip, ...]


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A worker found that the run cannot go on: the run folder cannot be written."""

    message: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The user, or the machine, wants the run to end soon."""

    reason: str


Event: TypeAlias = (
    NodeUp
    | NodeDown
    | Pending
    | Retry
    | InputsFound
    | WorkerReady
    | WorkerRefused
    | WorkerDied
    | Progressed
    | Scanned
    | ClipDecoded
    | ClipEncoded
    | ShardWritten
    | CallFailed
    | InputLost
    | RunFailed
    | Tick
    | Stop
)


# Commands.


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


@dataclass(frozen=True, slots=True)
class InFlight:
    """What is between the stages at one moment."""

    frames_bytes: int
    token_bytes: int
    workers: dict[WorkerKind, int]
