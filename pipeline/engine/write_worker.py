"""What a write worker does, in any executor: it writes and commits shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pipeline.engine.encode_worker import Encoded
from pipeline.engine.job import Job, ShardCommitted, Stopwatch
from pipeline.engine.joining import check_code, check_folder
from pipeline.failed_range import FailedRange
from pipeline.progress import Steps, count_in


class WriteWorker:
    """Writes and commits shards; twice gives the same bytes under the same name."""

    def __init__(self, job: Job, cpu_clock: Callable[[], float] = time.process_time) -> None:
        self._job, self._cpu_clock = job, cpu_clock
        self.steps = Steps()

    def start(self) -> None:
        """Load what writing needs.

        Raises:
            SettingsError: this machine does not see the run folder, or has other code than the driver.
        """
        from pipeline.shards import manifest

        assert manifest
        check_code(self._job)
        check_folder(self._job)

    def write(self, shard_id: str, clips: Sequence[Encoded], failures: Sequence[FailedRange]) -> ShardCommitted:
        """Write one shard.

        Raises:
            OSError: it cannot be written.
        """
        from pipeline.shards.manifest import write_shard

        count_in(self.steps)
        watch = Stopwatch(self._cpu_clock)
        job = self._job
        tokens = [clip.tokens for clip in clips]
        manifest = write_shard(job.out, shard_id, tokens, failures, job.run, job.execution.format)
        return ShardCommitted(manifest, watch.lap())

    def close(self) -> None:
        """Nothing is held open."""
