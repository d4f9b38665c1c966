"""Old bugs of the engine, put back into the scheduler by hand: the simulator has to find each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline.engine import decoding, encoding, events, intake, ledger, recovery, scheduler, worker_losses, worker_pool
from pipeline.engine.placement import place
from pipeline.engine.policy import Limits

Patch = pytest.MonkeyPatch


def decoders_claim_every_cpu(patch: Patch) -> None:
    """Decoders are placed before encoders, one on every core."""

    def greedy(nodes: Any, request: Any) -> Any:
        wanted = place(nodes, request)
        return {n: replace(c, decoders=nodes[n].cores, decoder_cores=1.0) for n, c in wanted.items()}

    patch.setattr(worker_pool, "place", greedy)
    patch.setattr(worker_pool, "KINDS", ("decode", "encode", "write"))


def waiting_counts_as_silence(patch: Patch) -> None:
    """A decoder that waits until its frames are taken away is late as well."""
    old = worker_pool.WorkerPool.late

    def late(self: worker_pool.WorkerPool, now_s: float) -> list[worker_pool.Worker]:
        blocked = [self.workers[n] for node in self.nodes.values() for n in node.blocked]
        limit_s = self._limits.decode_s
        return old(self, now_s) + [w for w in blocked if not w.calls and now_s - w.since_s > limit_s]

    patch.setattr(worker_pool.WorkerPool, "late", late)


def unit_outlives_its_last_clip(patch: Patch) -> None:
    """A decoder keeps its unit after the last clip: when it is lost, nothing is left to be retried."""
    old = decoding.Decoding._decode

    def decode(self: Any, worker: Any, run: Any, now_s: float) -> None:
        old(self, worker, run, now_s)
        if not run.unit.count and worker.number not in self._at:
            self._spent = {**getattr(self, "_spent", {}), worker.number: run}

    def lose(self: Any, worker: Any) -> None:
        spent = getattr(self, "_spent", {}).pop(worker.number, None)
        if spent is not None and worker.number not in self._at:
            self._queue_urgent(spent)
        old_lose(self, worker)

    old_lose = decoding.Decoding.worker_gone
    patch.setattr(decoding.Decoding, "_decode", decode)
    patch.setattr(decoding.Decoding, "worker_gone", lose)


def one_bad_clip_ends_the_run(patch: Patch) -> None:
    """A clip that no encoder can take is an error of the run."""
    old = recovery.Recovery._give_up

    def give_up(self: Any, worker: Any, clip: Any, failed: Any, now_s: float) -> str | None:
        return old(self, worker, clip, failed, now_s) or (failed.message if failed.failure == "encode" else None)

    patch.setattr(recovery.Recovery, "_give_up", give_up)


def no_limit_for(*kinds: str) -> Callable[[Patch], None]:
    """Workers of some kinds may be silent for ever."""

    def mutate(patch: Patch) -> None:
        old = worker_pool.Worker.limit_s

        def limit_s(self: worker_pool.Worker, limits: Limits) -> float:
            return 1e9 if self.kind in kinds and self.is_ready else old(self, limits)

        patch.setattr(worker_pool.Worker, "limit_s", limit_s)

    return mutate


def replacement_is_not_awaited(patch: Patch) -> None:
    """A new encoder gets calls before it is ready."""
    old = scheduler.Scheduler._worker_died

    def died(self: Any, event: events.WorkerDied) -> None:
        old(self, event)
        for worker in self.pool.of_kind("encode"):
            worker.is_ready = True
            self._encoding.fill(worker, self._now_s)

    patch.setattr(scheduler.Scheduler, "_worker_died", died)


def a_lost_writer_ends_the_run(patch: Patch) -> None:
    """The end of a writer's process is an error of the run."""
    old = scheduler.Scheduler._worker_died

    def died(self: Any, event: events.WorkerDied) -> None:
        if self.kind_of(event.worker) == "write":
            self._ending.finish("the writer's process died")
        old(self, event)

    patch.setattr(scheduler.Scheduler, "_worker_died", died)


def every_decoder_claims_a_core(patch: Patch) -> None:
    """More decoders than cores claim a core each."""
    old = worker_pool.WorkerPool._start

    def start(self: Any, kind: Any, node: Any, *rest: Any) -> Any:
        command = old(self, kind, node, *rest)
        return replace(command, cores=1.0) if kind == "decode" else command

    patch.setattr(worker_pool.WorkerPool, "_start", start)


def one_writer_serves_the_cluster(patch: Patch) -> None:
    """There is a writer on the first node alone."""

    def one(nodes: Any, request: Any) -> Any:
        return {n: w if n == next(iter(nodes)) else replace(w, writers=0) for n, w in place(nodes, request).items()}

    patch.setattr(worker_pool, "place", one)


def the_third_strike_of_a_lost_node_counts(patch: Patch) -> None:
    """What died with its node is taken for what killed its worker."""
    patch.setattr(recovery.Recovery, "forgive", lambda self, node, now_s: None)


def the_first_of_two_clips_is_blamed(patch: Patch) -> None:
    """Of two clips in an encoder that dies, the first is taken for the cause."""
    patch.setattr(worker_losses.WorkerLosses, "_encodes_several", lambda self, worker: False)


def three_lost_encoders_end_the_run(patch: Patch) -> None:
    """The third encoder that is lost ends the run, whatever took it."""
    old = worker_losses.WorkerLosses._hand_over

    def leave(self: Any, gone: list[worker_pool.Worker], now_s: float) -> None:
        old(self, gone, now_s)
        self._lost = getattr(self, "_lost", 0) + sum(worker.kind == "encode" for worker in gone)
        if self._lost >= 3:
            self._ending.finish("the encoder's process died 3 times")

    patch.setattr(worker_losses.WorkerLosses, "_hand_over", leave)


def retries_go_to_the_back(patch: Patch) -> None:
    """What is done again waits behind everything that is planned."""
    old = decoding.Decoding.decode_again

    def again(self: Any, clip: Any, shard_id: str, *, alone: bool) -> None:
        self._urgent, urgent = decoding.deque(), self._urgent
        old(self, clip, shard_id, alone=True)
        self._fresh += self._urgent
        self._urgent = urgent

    patch.setattr(decoding.Decoding, "decode_again", again)


def objects_are_counted(patch: Patch) -> None:
    """Back-pressure allows so many clips, whatever their size and the store's."""

    def has_credit(self: Any, node: Any) -> bool:
        return bool(node.frames_bytes < 8 * self._policy.clip_bytes)

    patch.setattr(decoding.Decoding, "_has_credit", has_credit)


def lowest_number_first(patch: Patch) -> None:
    """A clip goes to the encoder with the lowest number that has room, wherever it is."""
    old = encoding.Encoding.offer

    def offer(self: Any, clip: Any, now_s: float, *, first: bool = False) -> None:
        room = sorted(number for row in self._room for number in row)
        if room:
            self._give(self._pool.workers[room[0]], clip, now_s)
        else:
            old(self, clip, now_s, first=first)

    patch.setattr(encoding.Encoding, "offer", offer)


def all_is_scanned_first(patch: Patch) -> None:
    """Nothing is decoded before every input is scanned."""
    old = decoding.Decoding._take_unit

    def take_run(self: Any) -> Any:
        return old(self) if self._intake.is_empty else None

    patch.setattr(decoding.Decoding, "_take_unit", take_run)


def limit_covers_a_whole_scan(patch: Patch) -> None:
    """Progress does not count: a call has to end within its limit."""
    patch.setattr(scheduler.Scheduler, "_progressed", lambda self, event: None)


def gaps_are_decoded_too(patch: Patch) -> None:
    """What is pending of a video is taken for consecutive."""
    patch.setattr(decoding, "_stretches", lambda units: [list(units)] if units else [])


def twins_are_planned_once(patch: Patch) -> None:
    """An input named twice, scanned twice before its turn, is planned once and then awaited for ever."""

    def scanned(self: Any, source: Any, video: Any, now_s: float) -> None:
        self._scanned[source] = intake.deque([(now_s, video)])

    patch.setattr(intake.Intake, "scanned", scanned)


def frames_of_a_lost_node_are_forgotten(patch: Patch) -> None:
    """Clips whose frames and encoder go with one node are nobody's."""

    def pass_on(self: Any, worker: worker_pool.Worker, subject: Any, now_s: float) -> None:
        is_frames = worker.kind == "encode" and not self._pool.is_up(self._ledger.clips[subject].node)
        if not is_frames:
            old(self, worker, subject, now_s)

    old = recovery.Recovery.pass_on
    patch.setattr(recovery.Recovery, "pass_on", pass_on)


def a_sleep_is_silence(patch: Patch) -> None:
    """After the driver's machine slept, all its workers are late."""
    patch.setattr(worker_pool.WorkerPool, "postpone_deadlines", lambda self, gap_s: None)


def lost_tokens_count_as_there(patch: Patch) -> None:
    """A shard does not notice that tokens of it were lost."""
    patch.setattr(ledger.Ledger, "drop", lambda self, clip: self.clips.pop(clip))


OLD_BUGS: dict[str, Callable[[Patch], None]] = {
    "decoders claim every CPU": decoders_claim_every_cpu,
    "waiting counts as silence": waiting_counts_as_silence,
    "IndexError after a unit's last clip": unit_outlives_its_last_clip,
    "one unencodable clip ends the run": one_bad_clip_ends_the_run,
    "encoding has no limit": no_limit_for("encode"),
    "writing has no limit": no_limit_for("write"),
    "a replacement encoder is not awaited": replacement_is_not_awaited,
    "a lost writer ends the run": a_lost_writer_ends_the_run,
    "more workers than cores claim a core each": every_decoder_claims_a_core,
    "one writer serves the cluster": one_writer_serves_the_cluster,
    "a lost node counts against its clips": the_third_strike_of_a_lost_node_counts,
    "the first of two clips in an encoder is blamed": the_first_of_two_clips_is_blamed,
    "three lost encoders end the run": three_lost_encoders_end_the_run,
    "retries go to the back": retries_go_to_the_back,
    "objects are counted, not bytes": objects_are_counted,
    "clips go to the lowest number": lowest_number_first,
    "all is scanned first": all_is_scanned_first,
    "the limit covers a whole scan": limit_covers_a_whole_scan,
    # Those of the scheduler's first version.
    "gaps between pending units": gaps_are_decoded_too,
    "an input named twice": twins_are_planned_once,
    "frames lost with their encoder": frames_of_a_lost_node_are_forgotten,
    "the driver's sleep is silence": a_sleep_is_silence,
    "lost tokens count as there": lost_tokens_count_as_there,
}
