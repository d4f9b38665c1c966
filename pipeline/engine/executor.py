"""What carries the scheduler's commands out, and tells what happened."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from pipeline.engine.job import Record
from pipeline.engine.messages import Event, InFlight, WorkCommand
from pipeline.values import FailedRange

Observed: TypeAlias = Record | FailedRange | InFlight


class Executor(Protocol):
    """Where the work runs. Every executor gives the same bytes."""

    @property
    def num_cores(self) -> int:
        """Cores that the stages share, all nodes together."""

    def carry_out(self, command: WorkCommand) -> None:
        """Begin what the command says; what comes of it is told by `wait`."""

    def tell(self, event: Event) -> None:
        """Have `wait` return an event from outside, from any thread or signal handler."""

    def wait(self, timeout_s: float) -> list[Event | Record]:
        """What has happened, in its order; after `timeout_s` at the latest."""

    def observe(self, item: Observed) -> None:
        """Count what happens, where somebody collects such counts."""

    def close(self) -> None:
        """Stop every worker and let go of everything."""
