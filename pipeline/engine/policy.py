"""The numbers that the scheduler goes by."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pipeline.engine.placement import ResourceRequest

STORE_SHARE = 0.3
"""Of a node's object store, for frames; as much of all stores together again, for tokens. The rest is the store's."""
CALLS_AHEAD = 2
"""Calls handed to a worker at once: one at work, one waiting, so that it never idles between two."""
READY_CLIPS = 4
"""Clips a decoder that are planned ahead; then scanning pauses."""
SCANNING_SHARE = 4
"""While there are clips to decode, at most one decoder in so many scans."""
IDLE_SHARD_S = 30.0
"""A shard that waits for nothing but further videos is written after so long."""
DRAIN_S = 8.0
"""After a stop, how long what is complete may take to be written."""
PAUSE_S = 10.0
"""Events come at least this often. After a longer gap the driver itself was asleep, and nobody is late for that."""
NODE_LOSS_S = 60.0
"""A death so shortly before its node was lost was the node's."""
QUEUED_SCAN_BYTES = 64 << 20
"""A scan of at most so many bytes is short: another call may be queued behind it."""
NEAR_S = 30.0
"""So much longer a clip waits for an encoder of another node than for one of its own."""
SLOW_START_S = 60.0
"""A worker that takes longer to start is told of: others may hold what it needs."""
ASK_SHARE = 0.25
"""A worker is asked for its progress when so much of its time is over, and so much later again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds without progress after which a worker is stopped, by what it is at."""

    start_s: float = 600.0
    scan_s: float = 300.0
    decode_s: float = 300.0
    encode_s: float = 600.0
    write_s: float = 600.0
    nodes_s: float = 10.0
    """How long to wait for nodes that can hold what is asked, where there were none yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the scheduler is told of a run."""

    request: ResourceRequest
    fps: Fraction
    clip_frames: int
    clip_bytes: int
    """Frames of a full clip."""
    unit_clips: int
    shard_clips: int
    limits: Limits = Limits()
