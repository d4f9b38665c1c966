"""The executor on Ray: each worker an actor, each call an actor task, each answer an event.

Frames go from decoders to encoders, and tokens from encoders to writers, as object references; only small answers come
through the driver.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import (
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.engine import commands, events
from pipeline.engine.commands import WorkCommand, WorkerKind
from pipeline.engine.events import Event, Subject
from pipeline.engine.executor import Observed
from pipeline.engine.job import Job, Note, Record
from pipeline.engine.ray_actors import Answer, DecodeActor, EncodeActor, WriteActor
from pipeline.engine.ray_metrics import Metrics
from pipeline.engine.worker_types import REAL, WorkerTypes
from pipeline.errors import FailureClass
from pipeline.inputs.named import Input
from pipeline.plan.units import Clip

LOOK_EVERY_S = 1.0
"""How often the nodes of the cluster are looked at."""
NODE_DIED = "node has died"
"""Part of Ray's message for an actor that was lost with its node."""


@dataclass(slots=True, eq=False)
class _ActorState:
    """An actor and what the executor knows of it."""

    actor: Any
    kind: WorkerKind
    node: str
    pid: int = 0
    """Of its process, once it has started; the names of Ray's logs end with it."""


class RayExecutor:
    """Actors on the nodes of a cluster that is connected."""

    def __init__(self, job: Job, types: WorkerTypes = REAL) -> None:
        self._job, self._types = ray.put(job), types
        self._overlaps = job.encode_calls_at_once > 1
        self._happened: SimpleQueue[Callable[[], list[Event | Record]]] = SimpleQueue()
        self._actors: dict[int, _ActorState] = {}
        self._frames: dict[Clip, Any] = {}
        self._tokens: dict[Clip, Any] = {}
        self._nodes: dict[str, events.NodeUp] = {}
        self._looked_s = -LOOK_EVERY_S
        self._metrics = Metrics()

    @property
    def num_cores(self) -> int:
        """Cores of all nodes together."""
        return sum(node.cores for node in self._nodes.values())

    def tell(self, event: Event) -> None:
        """Have `wait` return an event from outside."""
        self._happened.put(lambda: [event])

    def wait(self, timeout_s: float) -> list[Event | Record]:
        """What has happened, in its order."""
        found = self._look_at_nodes()
        try:
            found += self._happened.get(timeout=0.0 if found else timeout_s)()
            while True:
                found += self._happened.get_nowait()()
        except Empty:
            return found

    def carry_out(self, command: WorkCommand) -> None:
        """Send a call, start or end an actor."""
        if isinstance(command, commands.StartWorker):
            self._start(command)
        elif isinstance(command, commands.Forget):
            self._frames.pop(command.clip, None)
            self._tokens.pop(command.clip, None)
        elif command.worker in self._actors:
            self._call(command, self._actors[command.worker])

    def observe(self, item: Observed) -> None:
        """Count it in Ray's metrics."""
        self._metrics.observe(item)

    def close(self) -> None:
        """End every actor."""
        for state in self._actors.values():
            with contextlib.suppress(RayError):
                ray.kill(state.actor)
        self._actors.clear()

    def _look_at_nodes(self) -> list[Event | Record]:
        if time.monotonic() - self._looked_s < LOOK_EVERY_S:
            return []
        self._looked_s = time.monotonic()
        alive = living_nodes()
        gone = [name for name in self._nodes if name not in alive]
        come = [node for name, node in alive.items() if name not in self._nodes]
        found: list[Event | Record] = [event for name in gone for event in self._lose_node(name)]
        for node in come:
            self._nodes[node.node] = node
            found.append(node)
        return found

    def _lose_node(self, name: str) -> list[Event]:
        """Forget a lost node and its actors."""
        if self._nodes.pop(name, None) is None:
            return []
        for number in [number for number, state in self._actors.items() if state.node == name]:
            del self._actors[number]
        return [events.NodeDown(name)]

    def _start(self, command: commands.StartWorker) -> None:
        options: dict[str, Any] = {
            "num_cpus": command.cores,
            "num_gpus": command.gpus,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(command.node, soft=False),
        }
        if command.kind == "decode":
            actor = DecodeActor.options(**options).remote(self._job, self._types)
        elif command.kind == "encode":
            node = self._nodes[command.node]
            threads = max(1, int(node.cores if not command.gpus else node.cores * command.gpus / max(1, node.gpus)))
            actor = EncodeActor.options(**options).remote(self._job, self._types, threads)
        else:
            actor = WriteActor.options(**options).remote(self._job, self._types)
        self._actors[command.worker] = _ActorState(actor, command.kind, command.node)
        self._expect(actor.start.remote(), command.worker, partial(self._started, command.worker))
        self._expect(actor.watch.remote(), command.worker, lambda answer: [])

    def _call(self, command: WorkCommand, state: _ActorState) -> None:
        actor, number = state.actor, command.worker  # type: ignore[union-attr]
        if isinstance(command, commands.KillWorker):
            del self._actors[number]
            ray.kill(actor)
        elif isinstance(command, commands.AskProgress):
            self._expect(actor.steps.remote(), number, lambda steps: [events.Progressed(number, steps)])
        elif isinstance(command, commands.Scan):
            ref = actor.scan.remote(command.input)
            self._expect(ref, number, partial(self._scanned, number, command.input), command.input)
        elif isinstance(command, commands.DecodeClip):
            ref, frames = actor.decode.remote(command.clip, command.uri, command.unit)
            self._expect(ref, number, partial(self._decoded, number, command.clip, frames), command.clip)
        elif isinstance(command, commands.EncodeClip):
            encode = actor.encode_overlapping if self._overlaps else actor.encode
            ref, tokens = encode.remote(self._frames[command.clip], command.uri)
            self._expect(ref, number, partial(self._encoded, number, command.clip, tokens), command.clip)
        elif isinstance(command, commands.WriteShard):
            clips = [self._tokens[clip] for clip in command.clips]
            ref = actor.write.remote(command.shard_id, command.failures, *clips)
            self._expect(ref, number, partial(self._written, number, command.shard_id), command.shard_id)

    # Answers. They arrive in a thread of Ray's, and are handled in the thread that calls `wait`.

    def _expect(
        self, ref: Any, number: int, then: Callable[[Any], list[Event | Record]], subject: Subject | None = None
    ) -> None:
        ref.future().add_done_callback(
            lambda future: self._happened.put(lambda: self._came(future, number, then, subject))
        )

    def _came(
        self, future: Any, number: int, then: Callable[[Any], list[Event | Record]], subject: Subject | None
    ) -> list[Event | Record]:
        if number not in self._actors:
            return []
        error = future.exception()
        if error is not None:
            return list(self._failed(number, error, subject))
        answer = future.result()
        if isinstance(answer, Answer) and answer.failure is not None:
            return [events.RunFailed(answer.failure)]
        notes = answer.notes if isinstance(answer, Answer) else ()
        return [*(Note(f"{self._name(number)}: {line}") for line in notes), *then(answer)]

    def _name(self, number: int) -> str:
        state = self._actors[number]
        return f"{state.kind} worker {number} on node {state.node[:8]}"

    def _failed(self, number: int, error: BaseException, subject: Subject | None) -> list[Event]:
        """Events for an error that Ray raised. Errors of the work itself come as answers."""
        state = self._actors[number]
        lost = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(lost, ObjectLostError) and subject is not None:
            clips = self._lost_of(subject, lost.object_ref_hex)
            # Where nobody knows what is lost, a retry without a limit might lose it for ever.
            return [
                events.InputLost(number, subject, clips)
                if clips
                else events.CallFailed(number, subject, "io", str(lost))
            ]
        if isinstance(error, RayActorError) and (NODE_DIED in str(error) or state.node not in living_nodes()):
            return self._lose_node(state.node)
        failure: FailureClass = "out_of_memory" if isinstance(error, OutOfMemoryError) else "crash"
        name = f"{self._name(number)} (pid {state.pid})" if state.pid else self._name(number)
        del self._actors[number]
        with contextlib.suppress(RayError):
            ray.kill(state.actor)
        return [events.WorkerDied(number, failure, f"the process of {name} died ({reason_of(error)})")]

    def _lost_of(self, subject: Subject, object_hex: str) -> tuple[Clip, ...]:
        """The clip whose frames or tokens the object was."""
        if isinstance(subject, Clip):
            return (subject,)
        return tuple(clip for clip, ref in self._tokens.items() if ref.hex() == object_hex)

    def _started(self, number: int, answer: Answer) -> list[Event | Record]:
        if answer.refusal is not None:
            return [events.WorkerRefused(number, answer.refusal)]
        self._actors[number].pid = answer.value
        return [events.WorkerReady(number)]

    def _scanned(self, number: int, source: Input, answer: Answer) -> list[Event | Record]:
        return _problem(number, source, answer) or [events.Scanned(number, source, answer.value)]

    def _decoded(self, number: int, clip: Clip, frames: Any, answer: Answer) -> list[Event | Record]:
        if answer.problem is None:
            self._frames[clip] = frames
        return _problem(number, clip, answer) or [events.ClipDecoded(number, clip, answer.num_bytes)]

    def _encoded(self, number: int, clip: Clip, tokens: Any, answer: Answer) -> list[Event | Record]:
        if answer.problem is None:
            self._tokens[clip] = tokens
            self._frames.pop(clip, None)
        return _problem(number, clip, answer) or [answer.value, events.ClipEncoded(number, clip, answer.num_bytes)]

    def _written(self, number: int, shard_id: str, answer: Answer) -> list[Event | Record]:
        return _problem(number, shard_id, answer) or [answer.value, events.ShardWritten(number, shard_id)]


def _problem(number: int, subject: Subject, answer: Answer) -> list[Event | Record]:
    problem = answer.problem
    return [] if problem is None else [events.CallFailed(number, subject, problem.failure, problem.message)]


def living_nodes() -> dict[str, events.NodeUp]:
    """The nodes that are alive, by id."""
    return {node["NodeID"]: node_up(node) for node in ray.nodes() if node["Alive"]}


def node_up(node: dict[str, Any]) -> events.NodeUp:
    """One node of Ray's list as an event."""
    resources = node["Resources"]
    return events.NodeUp(
        node=node["NodeID"],
        cores=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        store_bytes=int(resources.get("object_store_memory", 0)),
    )


CONNECTION_LOST = "connection error code 2"
"""Part of Ray's message for a process that ended unexpectedly. Ray does not tell its signal."""


def reason_of(error: BaseException) -> str:
    """What Ray says of a death, in a few words."""
    if isinstance(error, OutOfMemoryError):
        return "its node ran out of memory"
    if CONNECTION_LOST in str(error):
        return (
            "killed by a signal, or crashed in native code; Ray's log on the node that ends with its pid may say more"
        )
    for line in str(error).splitlines():
        text = line.strip()
        for marker in ("Worker exit detail: ", "Worker exit type: "):
            if marker in text:
                return text.split(marker, 1)[1].split(". Some common causes")[0].split(". There are")[0]
    return str(error).strip().splitlines()[0]
