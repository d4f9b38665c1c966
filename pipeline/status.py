"""How far a run is, from its store alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.plan.inputs import read_inputs
from pipeline.shards.commit_record import ShardManifest
from pipeline.shards.run_folder import read_state
from pipeline.store import Where
from pipeline.store.lease import SILENT_S, Owner, newest_owner

WINDOW_S = 600.0
"""The rate is that of the shards committed so lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """Counts of a run, and who is at it."""

    owner: str
    """Who runs it, or who did without ending in order; empty: nobody."""
    is_running: bool
    inputs: int
    inputs_scanned: int
    videos: int
    clips: int
    """Of the videos that are planned."""
    clips_done: int
    clips_failed: int
    planned_s: float
    """Seconds of video."""
    done_s: float
    failures: dict[str, int]
    """Recorded failures by class."""
    clips_per_s: float | None
    """Of the last ten minutes of a run that goes on; None where it does not, or is too young to tell."""
    eta_s: float | None
    """For the clips that are planned; inputs that are not scanned yet come on top."""

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def status(out: Where) -> RunStatus:
    """Read a run's plan and commits, and no tokens.

    Raises:
        RunFolderError: there is no run.
    """
    state = read_state(out)
    newest = newest_owner(state.store)
    owner = None if newest is None or newest[1].is_over else newest[1]
    now_s = time.time()
    is_running = owner is not None and not owner.is_known_to_be_gone and now_s - owner.beat_s < 2 * SILENT_S
    settled = state.settled
    videos = state.plan.videos
    num_clips, length_ns = videos.column("num_clips"), videos.column("end_ns") - videos.column("start_ns")
    clips, done = int(num_clips.sum()), settled.done.total
    failed = sum(len(found) for found in settled.lost.values())
    rate = _rate(state.manifests.values(), now_s) if is_running else None
    uris = {named.input.uri for named in read_inputs(state.store)}
    return RunStatus(
        owner=_text(owner, is_running),
        is_running=is_running,
        inputs=len(uris),
        inputs_scanned=len(uris & {uri for uri, _ in state.plan.addresses}),
        videos=len(videos),
        clips=clips,
        clips_done=done,
        clips_failed=failed,
        planned_s=int(length_ns.sum()) / 1e9,
        done_s=float((length_ns / 1e9 * settled.done.counts() / np.maximum(num_clips, 1)).sum()),
        failures=dict(Counter(failure.failure for failure in settled.failures)),
        clips_per_s=rate,
        eta_s=(clips - done - failed) / rate if rate else None,
    )


def _rate(manifests: Iterable[ShardManifest], now_s: float) -> float | None:
    recent = sorted((m.committed_s, m.num_clips) for m in manifests if now_s - m.committed_s < WINDOW_S)
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return None
    # From the first commit on: its own clips were made before it.
    return sum(clips for _, clips in recent[1:]) / (recent[-1][0] - recent[0][0])


def _text(owner: Owner | None, is_running: bool) -> str:
    if owner is None:
        return ""
    return f"{owner} runs it" if is_running else f"{owner} ran it, and ended without a word"
