"""The bounded loop on Ray: what to decode, encode and write next, and whom to blame when something dies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from pipeline.engine.job import ClipDone, Event, RangeFailed, ShardCommitted
from pipeline.engine.ledger import MAX_ATTEMPTS, OpenShards, UnitWork
from pipeline.errors import DecodeError, EncodeError, ExtractError
from pipeline.values import ShardPlan, VideoTiming

if TYPE_CHECKING:
    from pipeline.engine.ray_engine import RayEngine

QUEUED_PER_ENCODER = 2
"""Clips handed to an encode actor at once: one at work, one waiting, so that it never idles between two."""
POLL_S = 1.0


@dataclass(slots=True)
class Decoder:
    """A decode actor and the unit it is at."""

    actor: Any
    starting: Any
    """The actor's answer that it is up; None once it came. Until then no deadline of a unit counts."""
    deadline_s: float
    """Of the start, then of what it is at."""
    work: UnitWork | None = None
    clips: Any = None
    """The actor's stream of (frames, record) pairs."""

    def allow(self, seconds: float) -> None:
        """Give it so long from now, or from when it is up."""
        if self.starting is None:
            self.deadline_s = time.monotonic() + seconds

    def is_late(self, seconds: float) -> bool:
        """Whether it is past its deadline; a start that has ended begins the `seconds` of its work."""
        if self.starting is not None and ray.wait([self.starting], timeout=0)[0]:
            self.starting = None
            self.allow(seconds)
        return time.monotonic() > self.deadline_s


@dataclass(frozen=True, slots=True)
class _Encoding:
    """A clip on its way through an encode actor."""

    encoder: int
    work: UnitWork
    clip_id: str
    frames: Any
    tokens: Any
    attempts: int = 1


class Extraction:
    """The loop's state: what is to be decoded, encoded and written."""

    def __init__(self, engine: RayEngine, shards: Sequence[ShardPlan], timings: dict[str, VideoTiming]) -> None:
        assert engine.job is not None, "start() comes first"
        self.engine, self.job, self.timings = engine, engine.job, timings
        self.limit_s = self.job.execution.unit_timeout_s
        self.plans = {shard.shard_id: shard for shard in shards}
        self.open = OpenShards[Any](shards)
        self.todo: deque[UnitWork] = deque()
        for shard in shards:
            self._queue(shard)
        self.decoded: deque[tuple[UnitWork, str, Any, int]] = deque()
        self.encoding: dict[Any, _Encoding] = {}
        self.writing: dict[Any, str] = {}

    def _queue(self, shard: ShardPlan) -> None:
        for unit in shard.units:
            self.todo.append(UnitWork(shard_id=shard.shard_id, unit=unit, uri=self.timings[unit.video_id].uri))

    def run(self) -> Iterator[Event]:
        """Until nothing is left."""
        while self.todo or self.decoded or self.encoding or self.writing or any(d.work for d in self.engine.decoders):
            self._dispatch()
            streams = {id(d.clips): d for d in self.engine.decoders if d.work and not self.decoded}
            waiting = [d.clips for d in streams.values()] + list(self.encoding) + list(self.writing)
            done, _ = ray.wait(waiting, timeout=POLL_S, fetch_local=False) if waiting else ([], [])
            for ref in done:
                if ref in self.encoding:
                    yield from self._encoded(ref)
                elif ref in self.writing:
                    yield from self._written(ref)
                else:
                    yield from self._delivered(streams[id(ref)])
            for decoder in streams.values():
                if decoder.work and decoder.is_late(self.limit_s):
                    yield from self._delivered(decoder, late=True)

    def _dispatch(self) -> None:
        for decoder in self.engine.decoders:
            if decoder.work is None and self.todo:
                self._start_unit(decoder, self.todo.popleft())
        for index in range(len(self.engine.encoders)):
            busy = sum(item.encoder == index for item in self.encoding.values())
            while self.decoded and busy < QUEUED_PER_ENCODER:
                self._start_encoding(index, *self.decoded.popleft())
                busy += 1

    def _start_unit(self, decoder: Decoder, work: UnitWork) -> None:
        decoder.work = work
        decoder.clips = decoder.actor.decode.remote(
            self.timings[work.unit.video_id], work.clips, self.job.picture, self.job.wants_motion
        )
        decoder.allow(self.limit_s)

    def _delivered(self, decoder: Decoder, *, late: bool = False) -> Iterator[Event]:
        """Take a clip from a decoder, or learn that it is through, or why it cannot go on."""
        work = decoder.work
        assert work is not None
        try:
            frames = None if late else next(decoder.clips)
            # A stream that ends after half a pair died there: the half is the error.
            record = next(decoder.clips, frames) if frames is not None else None
            self.engine.blame(decoder, record, late=late)
        except StopIteration:
            decoder.work = decoder.clips = None
        except DecodeError as error:
            decoder.work = decoder.clips = None
            rest, failed = work.after_failure(error)
            if rest is not None:
                self.todo.append(rest)
            if failed is not None:
                self.open.add_failure(work.shard_id, failed)
                yield RangeFailed(failed)
                self._write_if_complete(work.shard_id)
        else:
            self.decoded.append((work, work.clips[0].clip_id, frames, 1))
            decoder.work = work.after_clip()
            decoder.allow(self.limit_s)

    def _start_encoding(self, index: int, work: UnitWork, clip_id: str, frames: Any, attempts: int) -> None:
        record, tokens = self.engine.encoders[index].encode.remote(frames, work.uri)
        self.encoding[record] = _Encoding(index, work, clip_id, frames, tokens, attempts)

    def _encoded(self, ref: Any) -> Iterator[Event]:
        item = self.encoding.pop(ref)
        try:
            record: ClipDone = answer_of(ref)
        except RayActorError as error:
            if item.attempts >= MAX_ATTEMPTS:
                raise EncodeError(f"clip {item.clip_id}: the encoder's process died {MAX_ATTEMPTS} times") from error
            self._replace_encoder(item.encoder)
            self.decoded.appendleft((item.work, item.clip_id, item.frames, item.attempts + 1))
        except ObjectLostError:
            self._redo_unit(item.work)
        else:
            self.open.add_clip(item.work.shard_id, item.clip_id, item.tokens)
            yield record
            self._write_if_complete(item.work.shard_id)

    def _replace_encoder(self, index: int) -> None:
        """A new actor in a dead one's place; the clips queued there are not to blame."""
        self.engine.encoders[index] = self.engine.new_encoder()
        for ref in [ref for ref, item in self.encoding.items() if item.encoder == index]:
            item = self.encoding.pop(ref)
            self.decoded.appendleft((item.work, item.clip_id, item.frames, item.attempts))

    def _redo_unit(self, work: UnitWork) -> None:
        """Frames were lost with their node: decode that clip again, alone."""
        shard, unit = self.plans[work.shard_id], work.unit
        single = type(unit)(unit_id=unit.unit_id, video_id=unit.video_id, clips=work.clips[:1])
        self.todo.appendleft(UnitWork(shard_id=shard.shard_id, unit=single, uri=work.uri))

    def _write_if_complete(self, shard_id: str) -> None:
        if self.open.is_complete(shard_id):
            clips, failures = self.open.take(shard_id)
            self.writing[self.engine.writer.write.remote(shard_id, failures, *clips)] = shard_id

    def _written(self, ref: Any) -> Iterator[Event]:
        shard_id = self.writing.pop(ref)
        try:
            committed: ShardCommitted = answer_of(ref)
        except ObjectLostError:
            self._queue(self.plans[shard_id])
        else:
            yield committed


def answer_of(ref: Any) -> Any:
    """The value of an encode or write actor's answer; its own error as it was raised there."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, ExtractError | OSError):
            raise error.cause from None
        raise
