"""The settings and constants of the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pipeline.engine.placement import ResourceRequest

STORE_SHARE = 0.3
"""Share of a node's object store for frames; the same share of all stores together for tokens. The rest stays free."""
CALLS_AHEAD = 2
"""Calls that a worker holds: one running, one waiting, so that it does not idle between two."""
READY_CLIPS = 4
"""Scanning pauses when so many clips per decoder are ready to be decoded."""
ASKING_SHARE = 4
"""Further inputs and planned work are asked for when fewer than so many times as many clips are ready."""
SCANNING_SHARE = 4
"""While there are clips to decode, at most one in so many decoders scans."""
IDLE_SHARD_S = 30.0
"""An open shard that waits only for further videos is written after so long."""
DRAIN_S = 6.0
"""After a stop, how long complete shards may take to be written. Stopping workers and writing records take time too,
and the process should end within ten seconds."""
PAUSE_S = 10.0
"""Events come at least this often. After a longer gap the driver itself was suspended, and deadlines are extended."""
NODE_LOSS_S = 60.0
"""If a worker died so shortly before its node was lost, the node was the cause."""
QUEUED_SCAN_BYTES = 64 << 20
"""A scan of at most so many bytes is short: another call may be queued behind it."""
NEAR_S = 30.0
"""A waiting clip is encoded on another node if it is older by so much than the clips of that node."""
SLOW_START_S = 60.0
"""A worker that takes longer to start is reported: other jobs may hold its resources."""
ASK_SHARE = 0.25
"""A worker is asked for its progress each time this share of its limit has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds without progress after which a worker is stopped, by what it does."""

    start_s: float = 600.0
    scan_s: float = 300.0
    decode_s: float = 300.0
    encode_s: float = 600.0
    write_s: float = 600.0
    nodes_s: float = 5.0
    """How long to wait at the start for nodes that can hold every kind of worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings of a run that the scheduler needs."""

    request: ResourceRequest
    fps: Fraction
    clip_frames: int
    clip_bytes: int
    """Frames of a full clip."""
    unit_clips: int
    shard_clips: int
    encode_calls_at_once: int = 1
    """Clips that an encoder works on at the same time."""
    limits: Limits = Limits()
