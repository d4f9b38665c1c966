"""Counters and gauges of a run through Ray's metrics, which a Prometheus finds on each node as `ray_vtm_*`."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from pipeline.engine.executor import Observed
from pipeline.engine.in_flight import InFlight
from pipeline.engine.job import ClipDone, ShardCommitted
from pipeline.failed_range import FailedRange


class Metrics:
    """What this driver has seen."""

    def __init__(self) -> None:
        self._clips = Counter("vtm_clips", "Clips encoded.")
        self._video_s = Counter("vtm_video_seconds", "Seconds of video encoded.")
        self._tokens = Counter("vtm_tokens", "Merged tokens made.")
        self._shards = Counter("vtm_shards", "Shards committed.")
        self._shard_bytes = Counter("vtm_shard_bytes", "Bytes of committed shards.")
        self._failures = Counter("vtm_failures", "Ranges given up.", tag_keys=("failure", "stage"))
        self._stage_s = Counter("vtm_stage_seconds", "Time of the stages.", tag_keys=("stage", "clock"))
        self._bytes = Gauge("vtm_bytes_in_flight", "Bytes between the stages.", tag_keys=("what",))
        self._workers = Gauge("vtm_workers", "Workers that are there.", tag_keys=("kind",))

    def observe(self, item: Observed) -> None:
        """Count what has happened."""
        if isinstance(item, ClipDone):
            self._clips.inc()
            self._tokens.inc(max(item.tokens, 1))
            if item.video_ns:
                self._video_s.inc(item.video_ns / 1e9)
            self._stage("decode", item.decode.cpu_s, item.decode.wall_s)
            self._stage("encode", item.encode.cpu_s, item.encode.wall_s)
        elif isinstance(item, ShardCommitted):
            self._shards.inc()
            self._stage("write", item.write.cpu_s, item.write.wall_s)
            size_bytes = sum(file.size_bytes for file in item.manifest.files)
            if size_bytes:
                self._shard_bytes.inc(size_bytes)
        elif isinstance(item, FailedRange):
            self._failures.inc(tags={"failure": item.failure, "stage": item.stage})
        elif isinstance(item, InFlight):
            self._bytes.set(item.frames_bytes, tags={"what": "frames"})
            self._bytes.set(item.token_bytes, tags={"what": "tokens"})
            for kind, count in item.workers.items():
                self._workers.set(count, tags={"kind": kind})

    def _stage(self, stage: str, cpu_s: float, wall_s: float) -> None:
        for clock, seconds in (("cpu", cpu_s), ("wall", wall_s)):
            # Ray's counters take no zero, and a stage may be too short to be seen.
            self._stage_s.inc(max(seconds, 1e-9), tags={"stage": stage, "clock": clock})
