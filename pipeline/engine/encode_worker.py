"""What an encode worker does, in any executor: it turns the frames of clips into tokens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.engine.decode_worker import Decoded
from pipeline.engine.job import ClipDone, Job, StageTime, Stopwatch
from pipeline.engine.joining import check_code
from pipeline.errors import EncodeError
from pipeline.progress import Steps, count_in
from pipeline.values import TokenSet


@dataclass(frozen=True, slots=True)
class Encoded:
    """A clip on its way to a writer."""

    tokens: TokenSet

    @property
    def num_bytes(self) -> int:
        """Size of its arrays."""
        tokens = self.tokens
        return sum(a.nbytes for a in (tokens.tokens, tokens.sizes, tokens.centers, tokens.group, tokens.pooled))


class EncodeWorker:
    """Holds the encoder.

    Args:
        job: What the run is about.
        cpu_clock: What measures the time that encoding takes.
    """

    def __init__(self, job: Job, cpu_clock: Callable[[], float] = time.process_time) -> None:
        self._job, self._cpu_clock = job, cpu_clock
        self._encoder: Any = None
        self._launching = threading.Lock()
        self._free_s = 0.0
        """When the last clip was done."""
        self.steps = Steps()

    def start(self) -> None:
        """Load the encoder.

        Raises:
            SettingsError: it cannot be had here, is another one than the run's, or computes otherwise.
        """
        from pipeline.encode.clip_encoder import ClipEncoder
        from pipeline.encode.describe import check_weights
        from pipeline.encode.devices import check_device

        job = self._job
        check_code(job)
        check_device(job.encoder.device, job.recipe.compute_dtype, job.encoder.compute_dtype)
        check_weights(job.recipe, job.encoder)
        self._encoder = ClipEncoder(job.recipe, job.encoder, job.encoder.device)

    def encode(self, decoded: Decoded, uri: str) -> tuple[ClipDone, Encoded]:
        """Turn a clip's frames into tokens.

        Two threads may be at it, of which one launches its clip while the other waits for the one before.

        Raises:
            EncodeError: the encoder cannot take this clip.
            BrokenDeviceError: the device is lost, and this process with it.
        """
        count_in(self.steps)
        try:
            with self._launching:
                watch = Stopwatch(self._cpu_clock)
                launched = self._encoder.launch(decoded.clip)
            tokens: TokenSet = self._encoder.finish(launched, uri)
        except EncodeError:
            from pipeline.encode.devices import require_device

            require_device(self._job.encoder.device)
            raise
        record = ClipDone(
            video_id=tokens.video_id,
            clip_index=tokens.clip_index,
            video_ns=tokens.end_ns - tokens.start_ns,
            damaged_frames=tokens.damaged_frames,
            decode=decoded.time,
            encode=self._time_of(watch),
            tokens=len(tokens.sizes),
            patches=len(tokens.group),
            encoded_patches=tokens.encoded_patches,
        )
        return record, Encoded(tokens)

    def _time_of(self, watch: Stopwatch) -> StageTime:
        """What a clip took beyond the one before it: the sum over clips is the time in which the encoder was busy."""
        before_s = max(0.0, self._free_s - watch.started_s)
        taken = watch.lap()
        self._free_s = watch.started_s
        return StageTime(taken.cpu_s, taken.wall_s - before_s)

    def close(self) -> None:
        """Let go of the encoder."""
        self._encoder = None
