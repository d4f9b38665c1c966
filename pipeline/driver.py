"""The driver's own part of a run: it names the inputs, stores the plan, counts results, and tells the user."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from pipeline.engine import commands, events
from pipeline.engine.commands import DriverCommand
from pipeline.engine.events import Event
from pipeline.engine.job import ClipDone, Note, Record, ShardCommitted
from pipeline.errors import EngineError, SettingsError
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input
from pipeline.owed import Located, Owed
from pipeline.plan.plan import Plan
from pipeline.plan.table import PlanRow, append_rows
from pipeline.store import Store
from pipeline.store.lease import Lease
from pipeline.summary import Tally

FLUSH_S = 2.0
"""Rows of the plan are written so often while nothing else makes them be."""
CLIPS_PER_INPUT = 16
"""Planned work is handed out by clips: so many for each input that could have been named instead."""


class Listener(Protocol):
    """Who is told how a run goes."""

    def note(self, text: str) -> None:
        """A line for a person."""

    def planned(self, video_ns: int) -> None:
        """So much more video is to be extracted."""

    def record(self, record: Record) -> None:
        """A worker has finished something."""

    def failed(self, failed: FailedRange) -> None:
        """A range of a video is given up."""


class RunDriver:
    """The driver's part of a run.

    Args:
        out: Where the run lives.
        plan: What earlier runs planned.
        unknown: Inputs to be scanned.
        owed: Work that the plan holds already.
        located: Where the videos of the plan are today.
        listener: Told of progress.
        began_s: When the run began, by the performance counter.
    """

    def __init__(
        self,
        out: Store,
        plan: Plan,
        unknown: Sequence[Input],
        owed: Owed,
        located: Located,
        listener: Listener,
        began_s: float,
    ) -> None:
        self._out, self._listener, self._began_s = out, listener, began_s
        self._unknown = deque(unknown)
        self._unanswered = 0
        """Inputs that were named and of which nothing was heard."""
        self._is_asked = False
        self._owed, self._owed_later = owed.split(located)
        """Planned work whose videos are among the inputs, and that whose videos are not."""
        self.plan, self._located = plan, located
        self._asked_for = 0
        self._rows: list[PlanRow] = []
        self._flushed_s = began_s
        self._is_unwritable = False
        """Whether storing the plan failed the last time."""
        self._working_s: float | None = None
        self.tally = Tally()
        self._answered_ids: set[str] = set()
        self._failed_ids: set[str] = set()
        self.outcome: commands.Finish | None = None
        self.stopped: str | None = None
        """Why the run ends early, where it is not a signal."""
        self._lease: Lease | None = None
        self._limit_clips: int | None = None

    def watch(self, lease: Lease) -> None:
        """End the run when somebody else takes it over."""
        self._lease = lease

    def stop_after(self, clips: int | None) -> None:
        """End the run once so many clips are committed; None: when all are."""
        self._limit_clips = clips

    @property
    def is_limited(self) -> bool:
        """Whether the run was ended because its limit was reached."""
        return self.stopped is not None and self.stopped == self._limit_reason

    @property
    def _limit_reason(self) -> str:
        return f"--limit {self._limit_clips}"

    @property
    def has_work(self) -> bool:
        """Whether anything is to be done."""
        return bool(self._unknown or self._owed or self._owed_later)

    def has_seen(self, video_id: str) -> bool:
        """Whether a video is one of this run's inputs, or was planned by an earlier one and failed in this."""
        return video_id in self._answered_ids or video_id in self._located or video_id in self._failed_ids

    def open(self) -> list[Event]:
        """What the scheduler is told first: nothing, as it asks for work itself."""
        self._announce(self._owed.video_ns)
        return []

    def handle(self, command: DriverCommand) -> None:
        """Carry out a command that is the driver's."""
        if isinstance(command, commands.FindInputs):
            self._is_asked = True
            self._asked_for = command.count
        elif isinstance(command, commands.AppendPlan):
            self._plan(command)
        elif isinstance(command, commands.ReportCopy):
            self._copy(command)
        elif isinstance(command, commands.ReportFailure):
            self.tally = self.tally.with_failure()
            self._failed_ids.add(command.failed.video_id)
            self._listener.failed(command.failed)
        elif isinstance(command, commands.Notify):
            self._listener.note(command.text)
        else:
            self.outcome = command

    def record(self, record: Record) -> None:
        """Count what a worker has finished."""
        if isinstance(record, ClipDone):
            self.tally = self.tally.with_clip(record)
        elif isinstance(record, ShardCommitted):
            self.tally = self.tally.with_shard(record)
        if isinstance(record, Note):
            self._listener.note(record.text)
        else:
            self._listener.record(record)

    def answers(self) -> list[Event]:
        """Answers to `FindInputs`, as far as they are known.

        That there are no more inputs is said last. Planned work whose videos are not among the inputs begins then,
        at the addresses that the plan holds.
        """
        if self._lease is not None and self._lease.lost_to is not None and self.stopped is None:
            self.stopped = f"{self._lease.lost_to}, who took the run over"
            return [events.Stop(self.stopped)]
        if self._limit_clips is not None and self.tally.shards >= self._limit_clips and self.stopped is None:
            self.stopped = self._limit_reason
            return [events.Stop(self.stopped)]
        if not self._is_asked:
            return []
        inputs: tuple[Input, ...] = ()
        if not self._owed and self._unknown:
            count = min(self._asked_for, len(self._unknown))
            inputs = tuple(self._unknown.popleft() for _ in range(count))
            self._unanswered += count
        elif not self._owed and self._unanswered:
            return []
        elif not self._owed and self._owed_later:
            self._announce(self._owed_later.video_ns)
            self._owed, self._owed_later = self._owed_later, self._owed
        self._is_asked = False
        owed = self._owed.take(CLIPS_PER_INPUT * self._asked_for, self._located)
        return [*owed, events.InputsFound(inputs, is_last=not (self._unknown or self._owed or self._owed_later))]

    def flush_plan(self) -> None:
        """Store the rows that are not stored yet.

        Raises:
            OSError: they cannot be stored; they are kept for another attempt.
        """
        if self._rows:
            append_rows(self._out, self._rows)
            self._rows.clear()
            self._is_unwritable = False
        self._flushed_s = time.perf_counter()

    def flush_plan_in_time(self) -> None:
        """Store rows now and then; where that fails, again later."""
        now_s = time.perf_counter()
        if not self._rows or now_s - self._flushed_s <= FLUSH_S:
            return
        try:
            self.flush_plan()
        except OSError as error:
            self._flushed_s = now_s
            if not self._is_unwritable:
                self._listener.note(f"the plan cannot be stored: {error}; trying again every {FLUSH_S:.0f} s")
            self._is_unwritable = True

    def workers_ready(self) -> None:
        """The first decoder and the first encoder are ready."""
        if self._working_s is None:
            self._working_s = time.perf_counter()
            self.tally = replace(self.tally, startup_s=self._working_s - self._began_s)

    def close(self, *, num_cores: int, num_decoders: int, num_encoders: int, shared_cores: bool) -> None:
        """The run is over.

        Raises:
            SettingsError, EngineError: it could not go on.
        """
        error = None if self.outcome is None else self.outcome.error
        try:
            self.flush_plan()
        except OSError:
            if error is None:
                raise
        now_s = time.perf_counter()
        self.tally = replace(
            self.tally,
            num_cores=num_cores,
            num_decoders=num_decoders,
            num_encoders=num_encoders,
            shared_cores=shared_cores,
            wall_s=now_s - (self._working_s or now_s),
        )
        if self.outcome is not None and error is not None:
            raise (SettingsError if self.outcome.is_usage else EngineError)(error)

    def _plan(self, command: commands.AppendPlan) -> None:
        video = command.video
        self._rows.append(PlanRow(video, command.units))
        if command.units and video.source.video_id in self.plan.videos:
            # Clips that are tried again: not an answer, and announced before.
            return
        self._answered(video.source.video_id)
        for failed in video.failures if video.num_clips else ():
            self._listener.failed(failed)
        self._announce(video.end_ns - video.start_ns)

    def _announce(self, video_ns: int) -> None:
        if video_ns:
            self._listener.planned(video_ns)

    def _copy(self, command: commands.ReportCopy) -> None:
        """A known video at another address: moved, or there twice."""
        video_id, source = command.video.source.video_id, command.input
        self._answered(video_id)
        is_known = (source.uri, source.stamp) in self.plan.addresses
        row = replace(command.video, source=replace(command.video.source, uri=source.uri, stamp=source.stamp))
        located = self._located.uri(video_id)
        if located is None:
            self._located.put(video_id, source.uri)
            if not is_known:
                self._rows.append(PlanRow(row))
        elif located != source.uri:
            if not is_known:
                self._rows.append(PlanRow(row, is_copy=True))
            self._listener.note(f"{source.uri} has the same content as {located}")

    def _answered(self, video_id: str) -> None:
        self._unanswered -= 1
        self._answered_ids.add(video_id)
