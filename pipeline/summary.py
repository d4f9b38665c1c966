"""What a run took, what bounded it, and how close to that bound it came."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.counted import counted
from pipeline.engine.job import ClipDone, ShardCommitted, StageTime
from pipeline.failed_range import FailedRange

NO_TIME = StageTime()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Seconds and counts of one run's work."""

    num_cores: int = 0
    num_decoders: int = 0
    num_encoders: int = 0
    shared_cores: bool = True
    """Whether decoding and encoding compete for the same cores."""
    startup_s: float = 0.0
    """Until the first decoder and the first encoder were ready: imports, Ray, weights."""
    wall_s: float = 0.0
    """From then until the last shard was committed."""
    decode: StageTime = NO_TIME
    encode: StageTime = NO_TIME
    write: StageTime = NO_TIME
    clips: int = 0
    failures: int = 0
    shards: int = 0
    video_ns: int = 0
    patches: int = 0
    """Source patches of the clips."""
    encoded_patches: int | None = None
    """How many of them were encoded, where unchanged ones were not."""

    def with_clip(self, event: ClipDone) -> Tally:
        """One clip more."""
        return replace(
            self,
            clips=self.clips + 1,
            video_ns=self.video_ns + event.video_ns,
            decode=self.decode + event.decode,
            encode=self.encode + event.encode,
            patches=self.patches + event.patches,
            encoded_patches=None
            if event.encoded_patches is None
            else (self.encoded_patches or 0) + event.encoded_patches,
        )

    def with_shard(self, event: ShardCommitted) -> Tally:
        """One shard more."""
        return replace(self, shards=self.shards + 1, write=self.write + event.write)

    def with_failure(self) -> Tally:
        """One failed range more."""
        return replace(self, failures=self.failures + 1)

    def finished(self, wall_s: float) -> Tally:
        """The work is done."""
        return replace(self, wall_s=wall_s)

    @property
    def loads(self) -> dict[str, float]:
        """Share of its bound that each stage used: cores where they are shared, its own workers' time where not."""
        if not self.wall_s:
            return {}
        stages = {"decode": self.decode, "encode": self.encode, "write": self.write}
        if self.shared_cores:
            return {name: stage.cpu_s / (self.num_cores * self.wall_s) for name, stage in stages.items()}
        workers = {"decode": self.num_decoders, "encode": self.num_encoders, "write": 1}
        return {name: stage.wall_s / (workers[name] * self.wall_s) for name, stage in stages.items()}

    @property
    def bound(self) -> str:
        """The stage that took most."""
        return max(self.loads, key=self.loads.__getitem__, default="nothing")

    @property
    def efficiency(self) -> float:
        """Shared cores: CPU seconds of all stages over cores times wall. Else the busiest stage's share of the wall."""
        loads = self.loads
        if not loads:
            return 0.0
        return sum(loads.values()) if self.shared_cores else max(loads.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run folder holds after a run, and what the run took."""

    out: str
    videos: int
    clips: int
    bytes_written: int
    failures: tuple[FailedRange, ...]
    """Of the inputs that this run was asked for, and those that it met in work left by earlier runs."""
    tally: Tally
    stopped: str | None = None
    """Why the run ended before it was done."""
    is_limited: bool = False
    """Whether that was `--limit`."""

    @property
    def exit_code(self) -> int:
        """0: everything that was asked for is extracted. 3: something failed and is recorded. 130: stopped."""
        if self.stopped is not None and not self.is_limited:
            return 130
        return 3 if self.failures else 0

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        tally = self.tally
        return {
            "out": self.out,
            "videos": self.videos,
            "clips": self.clips,
            "bytes_written": self.bytes_written,
            "stopped": self.stopped,
            "failures": [asdict(failed) for failed in self.failures],
            "run": asdict(tally) | {"bound": tally.bound, "efficiency": tally.efficiency, "loads": tally.loads},
        }

    def lines(self) -> list[str]:
        """For people."""
        tally = self.tally
        lines = [
            f"{self.out}: {counted(self.videos, 'video')}, {counted(self.clips, 'clip')}, "
            f"{self.bytes_written / 1e6:.1f} MB, {counted(len(self.failures), 'failed range')}"
        ]
        lines += [f"  failed: {f.uri} [{f.failure}] {f.message}" for f in self.failures[:10]]
        if len(self.failures) > 10:
            lines.append(f"  and {len(self.failures) - 10} more in {self.out}/failures.parquet")
        if self.is_limited:
            lines.append(f"{self.stopped} reached: run the same command without --limit to extract the rest")
        elif self.stopped is not None:
            lines.append(f"stopped by {self.stopped}: run the same command again to go on from here")
        if not tally.clips and not tally.failures and self.stopped is None:
            return [*lines, "nothing was left to do"]
        if not tally.wall_s:
            return [*lines, "this run: no clip, as it ended before its workers were ready"]
        hours = tally.video_ns / 3.6e12
        stages = ", ".join(
            f"{name} {stage.cpu_s:.1f} CPU-s / {stage.wall_s:.1f} s"
            for name, stage in (("decode", tally.decode), ("encode", tally.encode), ("write", tally.write))
        )
        what = (
            f"CPU seconds of all stages over {counted(tally.num_cores, 'core')} x wall"
            if tally.shared_cores
            else f"busy seconds of {tally.bound} over wall"
        )
        spared = (
            [] if tally.encoded_patches is None else [f"patches encoded {tally.encoded_patches / tally.patches:.0%}"]
        )
        return [
            *lines,
            f"this run: {counted(tally.clips, 'clip')}, {hours:.2f} h of video in {tally.wall_s:.1f} s "
            f"({hours * 3600 / tally.wall_s:.0f} times real time), start-up {tally.startup_s:.1f} s",
            f"stages: {stages}",
            *spared,
            f"bound by {tally.bound}; efficiency {tally.efficiency:.2f} ({what})",
        ]
