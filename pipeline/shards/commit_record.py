"""The record of a shard's commit: which files it has, which clips they hold, and what was lost of it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.failed_range import FailedRange
from pipeline.plan.units import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardManifest:
    """Published last: a shard exists when its manifest, the record of its commit, does."""

    shard_id: str
    fingerprint: str
    num_clips: int
    files: tuple[ShardFile, ...]
    failures: tuple[FailedRange, ...]
    damaged_frames: dict[str, int]
    """Damaged frames by video, of those that have any."""
    clips: tuple[Unit, ...] = ()
    """The rows of its files, in order: runs of consecutive clips."""
    committed_s: float = 0.0
    """When, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """One file of a shard."""

    name: str
    """In the run folder: `shards/<id>.parquet` or `webdataset/<id>.tar`."""
    size_bytes: int
    sha256: str
