"""Assigns the clips of scanned videos to shards. Part of the scheduler."""

from __future__ import annotations

from collections.abc import Container

from pipeline.engine import commands, events
from pipeline.engine.commands import Command
from pipeline.engine.decoding import Decoding
from pipeline.engine.intake import Intake, ShardPacker
from pipeline.engine.ledger import Ledger
from pipeline.engine.policy import Policy
from pipeline.engine.writing import Writing
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import ShardUnit, Unit


class Planning:
    """Decides which clips go into which shard, before any of them is decoded.

    `planned` holds the ids of the videos that earlier runs planned.
    """

    def __init__(
        self,
        policy: Policy,
        planned: Container[str],
        intake: Intake,
        ledger: Ledger,
        decoding: Decoding,
        writing: Writing,
        out: list[Command],
    ) -> None:
        self._intake, self._ledger, self._decoding, self._writing, self._out = intake, ledger, decoding, writing, out
        self._packer = ShardPacker(policy.shard_clips, policy.unit_clips)
        self._planned_before = planned
        self._planned: set[str] = set()
        """Ids of the videos that this run has planned."""

    def resume(self, event: events.Pending, now_s: float) -> None:
        """Queue clips that an earlier run planned and did not write."""
        self._queue(event.video, event.units, now_s)

    def retry(self, event: events.Retry, now_s: float) -> None:
        """Plan clips again that an earlier run recorded as failed."""
        for unit in event.units:
            self._plan(event.video, unit, event.generation, now_s)

    def plan_scanned(self, now_s: float) -> None:
        """Plan scanned videos whose turn it is; after the last one the open shard is closed."""
        for source, video in self._intake.take_planned(now_s):
            video_id = video.source.video_id
            if video_id in self._planned or video_id in self._planned_before:
                self._out.append(commands.ReportCopy(source, video))
                continue
            self._planned.add(video_id)
            self._plan(video, Unit(video_id, 0, video.num_clips), 0, now_s)
        if self._intake.is_empty or self._writing.has_idled(now_s):
            self.close_shard(now_s)

    def close_shard(self, now_s: float) -> None:
        """Add no more clips to the open shard."""
        self._packer.close()
        self._writing.close_all_but(None, now_s)

    def _plan(self, video: PlannedVideo, clips: Unit, generation: int, now_s: float) -> None:
        units = tuple(self._packer.pack(clips, generation))
        self._out.append(commands.AppendPlan(video, units))
        self._queue(video, units, now_s)
        self._writing.close_all_but(self._packer.open_shard, now_s)

    def _queue(self, video: PlannedVideo, units: tuple[ShardUnit, ...], now_s: float) -> None:
        self._ledger.add_video(video, units, self._packer.open_shard, now_s)
        self._decoding.add(units, sequential=video.is_sequential)
