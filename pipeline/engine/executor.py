"""The interface of executors: they carry out the scheduler's commands and report events."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from pipeline.engine.commands import WorkCommand
from pipeline.engine.events import Event
from pipeline.engine.in_flight import InFlight
from pipeline.engine.job import Record
from pipeline.failed_range import FailedRange

Observed: TypeAlias = Record | FailedRange | InFlight


class Executor(Protocol):
    """Runs the workers. Every executor gives the same bytes."""

    @property
    def num_cores(self) -> int:
        """Cores that the stages share, all nodes together."""

    def carry_out(self, command: WorkCommand) -> None:
        """Begin to carry out a command; `wait` returns the events that follow."""

    def tell(self, event: Event) -> None:
        """Make `wait` return an event. May be called from any thread or signal handler."""

    def wait(self, timeout_s: float) -> list[Event | Record]:
        """Events in their order; returns after `timeout_s` at the latest."""

    def observe(self, item: Observed) -> None:
        """Update metrics, if this executor has any."""

    def close(self) -> None:
        """Stop every worker and release all resources."""
