"""What lies between the stages of a run, for those who watch it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.commands import WorkerKind


@dataclass(frozen=True, slots=True)
class InFlight:
    """What is between the stages at one moment."""

    frames_bytes: int
    token_bytes: int
    workers: dict[WorkerKind, int]
