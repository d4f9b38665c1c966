"""Who is to be blamed, and what is complete: attempts of units, and the shards that fill up. Engines share it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pipeline.errors import DecodeError, FailureClass
from pipeline.values import ClipSpec, FailedRange, ShardPlan, Unit

MAX_ATTEMPTS = 3
WORTH_RETRYING: frozenset[FailureClass] = frozenset({"io", "timeout", "crash", "out_of_memory"})
"""What may go well another time. A corrupt file stays corrupt."""

C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitWork:
    """What is left of a unit: the clips not delivered yet, and how often it was tried."""

    shard_id: str
    unit: Unit
    uri: str
    delivered: int = 0
    attempts: int = 1

    @property
    def clips(self) -> tuple[ClipSpec, ...]:
        """Clips still to be decoded."""
        return self.unit.clips[self.delivered :]

    def after_clip(self) -> UnitWork:
        """One clip further."""
        return replace(self, delivered=self.delivered + 1)

    def after_failure(self, error: DecodeError) -> tuple[UnitWork | None, FailedRange | None]:
        """What is left to do, and what is given up; the clips delivered stand.

        A lost process is given another attempt, and after the last one the rest of the unit goes with it. A decoder
        that says itself that a clip cannot be had costs that clip alone, so that what is extracted does not depend on
        the size of the units.
        """
        if error.failure in WORTH_RETRYING and self.attempts < MAX_ATTEMPTS:
            return replace(self, attempts=self.attempts + 1), None
        lost = self.clips if error.failure in WORTH_RETRYING else self.clips[:1]
        failed = FailedRange(
            video_id=self.unit.video_id,
            uri=self.uri,
            start_ns=lost[0].start_ns,
            end_ns=lost[-1].end_ns,
            failure=error.failure,
            message=str(error),
            attempts=self.attempts,
        )
        rest = replace(self, delivered=self.delivered + len(lost), attempts=1)
        return (rest if rest.clips else None), failed


class OpenShards(Generic[C]):
    """Clips gathered by shard until every clip of the shard is there or given up. C: a clip, or a reference to one."""

    def __init__(self, shards: Sequence[ShardPlan]) -> None:
        self._plans = {shard.shard_id: shard for shard in shards}
        self._clips: dict[str, dict[str, C]] = {}
        self._failures: dict[str, list[FailedRange]] = {}

    def add_clip(self, shard_id: str, clip_id: str, clip: C) -> None:
        """Take in one clip."""
        self._clips.setdefault(shard_id, {})[clip_id] = clip

    def add_failure(self, shard_id: str, failed: FailedRange) -> None:
        """Take in one failed range."""
        self._failures.setdefault(shard_id, []).append(failed)

    def is_complete(self, shard_id: str) -> bool:
        """Whether nothing of the shard is outstanding."""
        clips = self._clips.get(shard_id, {})
        return all(clip.clip_id in clips or self._is_lost(shard_id, clip) for clip in self._specs(shard_id))

    def take(self, shard_id: str) -> tuple[list[C], list[FailedRange]]:
        """The clips in plan order and the failures of a shard; forgets them."""
        clips = self._clips.pop(shard_id, {})
        order = [clip.clip_id for clip in self._specs(shard_id)]
        failures = _joined(self._failures.pop(shard_id, []))
        return [clips[clip_id] for clip_id in order if clip_id in clips], failures

    def _is_lost(self, shard_id: str, clip: ClipSpec) -> bool:
        return any(
            failed.video_id == clip.video_id and failed.start_ns <= clip.start_ns < failed.end_ns
            for failed in self._failures.get(shard_id, [])
        )

    def _specs(self, shard_id: str) -> Iterator[ClipSpec]:
        for unit in self._plans[shard_id].units:
            yield from unit.clips


def _joined(failures: Sequence[FailedRange]) -> list[FailedRange]:
    """In order, with neighbouring ranges that failed alike as one: a ruined hour is one row and not sixty."""
    joined: list[FailedRange] = []
    for failed in sorted(failures, key=lambda failed: (failed.video_id, failed.start_ns)):
        last = joined[-1] if joined else None
        alike = last is not None and (last.video_id, last.failure, last.end_ns) == (
            failed.video_id,
            failed.failure,
            failed.start_ns,
        )
        if last is not None and alike:
            joined[-1] = replace(last, end_ns=failed.end_ns, attempts=max(last.attempts, failed.attempts))
        else:
            joined.append(failed)
    return joined
