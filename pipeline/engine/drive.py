"""The loop of a run: events to the scheduler, its commands to the executor and the driver."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast, get_args

from pipeline.engine import commands, events
from pipeline.engine.commands import Command, DriverCommand, WorkCommand
from pipeline.engine.events import Event
from pipeline.engine.executor import Executor
from pipeline.engine.job import Record
from pipeline.engine.scheduler import Scheduler

TICK_S = 0.5
"""The scheduler hears of the time at least so often."""
RECORDS, DRIVER_COMMANDS = get_args(Record), get_args(DriverCommand)


class Driver(Protocol):
    """What the driver itself does."""

    outcome: commands.Finish | None
    """Set when the run is over."""

    def open(self) -> list[Event]:
        """What the scheduler is told first."""

    def handle(self, command: DriverCommand) -> None:
        """Carry out a command that is the driver's."""

    def record(self, record: Record) -> None:
        """Take in what a worker has finished."""

    def answers(self) -> list[Event]:
        """What the driver has to say to the scheduler."""

    def flush_plan(self) -> None:
        """Store what is planned.

        Raises:
            OSError: it cannot be stored now.
        """

    def flush_plan_in_time(self) -> None:
        """Store what is planned now and then; where that fails, again later."""

    def workers_ready(self) -> None:
        """The first decoder and the first encoder are ready."""


def drive(scheduler: Scheduler, executor: Executor, driver: Driver) -> str | None:
    """Run until the scheduler says that it is over.

    Returns:
        The signal that ended the run early, if one did.
    """
    ready_kinds: set[str | None] = set()
    ticked_s = time.monotonic()
    happened: deque[Event | Record] = deque(driver.open())
    with signals_stop(executor) as stopped:
        while driver.outcome is None:
            happened += executor.wait(0.0 if happened else TICK_S)
            # Workers are started on a tick, when all nodes that came together are known.
            if time.monotonic() - ticked_s >= TICK_S or any(isinstance(item, events.NodeUp) for item in happened):
                ticked_s = time.monotonic()
                happened.append(events.Tick())
                executor.observe(scheduler.in_flight())
                driver.flush_plan_in_time()
            while happened:
                item = happened.popleft()
                if isinstance(item, RECORDS):
                    driver.record(cast(Record, item))
                    executor.observe(cast(Record, item))
                    continue
                event = cast(Event, item)
                if isinstance(event, events.WorkerReady):
                    ready_kinds.add(scheduler.kind_of(event.worker))
                    if ready_kinds >= {"decode", "encode"}:
                        driver.workers_ready()
                for command in scheduler.handle(event, time.monotonic()):
                    happened += carry_out(command, executor, driver)
                happened += driver.answers()
    return stopped[0] if stopped else None


def carry_out(command: Command, executor: Executor, driver: Driver) -> list[Event]:
    """Give a command to whom it concerns. Returns what failed at once."""
    if isinstance(command, DRIVER_COMMANDS):
        driver.handle(cast(DriverCommand, command))
        if isinstance(command, commands.ReportFailure):
            executor.observe(command.failed)
        return []
    if isinstance(command, commands.WriteShard):
        try:
            # A committed shard must be found in the plan.
            driver.flush_plan()
        except OSError as error:
            message = f"the plan cannot be stored: {error}"
            return [events.CallFailed(command.worker, command.shard_id, "io", message)]
    executor.carry_out(cast(WorkCommand, command))
    return []


@contextmanager
def signals_stop(executor: Executor) -> Iterator[list[str]]:
    """Let SIGINT and SIGTERM end the run in order; a second one ends it at once. Yields what came."""
    came: list[str] = []

    def stop(number: int, frame: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(signal.Signals(number).name)
        executor.tell(events.Stop(came[0]))

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread of a program may handle signals; then they are its own matter.
        yield came
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
