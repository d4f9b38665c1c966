"""What the scheduler is told: values of numbers and names, without Ray, clocks or files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pipeline.errors import FailureClass
from pipeline.inputs.named import Input
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import Clip, ShardUnit, Unit

Subject: TypeAlias = Input | Clip | str
"""What a call is about: an input to scan, a clip to decode or encode, a shard id to write."""


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
