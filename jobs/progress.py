"""Progress in video time: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from pipeline.counted import counted
from pipeline.engine.job import ClipDone, Record, ShardCommitted
from pipeline.failed_range import FailedRange

LINE_EVERY_S = 10.0
BAR = "{desc} {percentage:3.0f}%|{bar}| {n:.2f}/{total:.2f} h of video [{elapsed}<{remaining}{postfix}]"
log = logging.getLogger(__name__)


class Progress:
    """Listens to a run and shows its progress.

    Args:
        quiet: Show no bar; log lines are filtered by the logging level.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._terminal = sys.stderr.isatty() and not quiet
        self._bar: Any = None
        self._total_ns = self._done_ns = 0
        self._began_s = self._line_s = time.monotonic()
        self._failures = self._shards = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def note(self, text: str) -> None:
        """Show a line."""
        log.info("%s", text)

    def planned(self, video_ns: int) -> None:
        """Add to the work ahead."""
        if not self._total_ns:
            self._began_s = time.monotonic()
        self._total_ns += video_ns
        if self._terminal and self._bar is None:
            self._bar = tqdm(total=0, desc="extract", bar_format=BAR, file=sys.stderr)
        if self._bar is not None:
            self._bar.total = self._total_ns / 3.6e12

    def record(self, record: Record) -> None:
        """Advance by what a worker has finished."""
        if isinstance(record, ClipDone):
            self._advance(record.video_ns)
        elif isinstance(record, ShardCommitted):
            self._shards += 1

    def failed(self, failed: FailedRange) -> None:
        """Advance over a failed range, and log it."""
        self._failures += 1
        self._advance(failed.end_ns - failed.start_ns)
        where = f", {failed.start_ns / 1e9:.1f} to {failed.end_ns / 1e9:.1f} s" if failed.end_ns else ""
        log.warning("failed: %s%s [%s] %s", failed.uri, where, failed.failure, failed.message)

    def _advance(self, video_ns: int) -> None:
        self._done_ns += video_ns
        elapsed_s = time.monotonic() - self._began_s
        times = self._done_ns / 1e9 / max(elapsed_s, 1e-9)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{times:.0f}x real time, {self._failures} failed", refresh=False)
            self._bar.update(video_ns / 3.6e12)
        elif time.monotonic() - self._line_s >= LINE_EVERY_S:
            self._line_s = time.monotonic()
            left_s = (self._total_ns - self._done_ns) / 1e9 / max(times, 1e-9)
            log.info(
                "%.2f of %.2f h of video, %.0fx real time, %.0f s left, %s, %d failed",
                self._done_ns / 3.6e12,
                self._total_ns / 3.6e12,
                times,
                left_s,
                counted(self._shards, "shard"),
                self._failures,
            )


class Silence:
    """A listener that shows nothing."""

    def note(self, text: str) -> None:
        """Not shown."""

    def planned(self, video_ns: int) -> None:
        """Not shown."""

    def record(self, record: Record) -> None:
        """Not shown."""

    def failed(self, failed: FailedRange) -> None:
        """Not shown."""
