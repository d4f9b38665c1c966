"""What the three kinds of worker do, in any executor. Each loads what it needs and knows nothing of the others."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pipeline.engine.job import ClipDone, Job, Problem, ShardCommitted, StageTime, Stopwatch, code_sha256
from pipeline.errors import DecodeError, EncodeError, SettingsError, StoreError
from pipeline.plan.index_file import has_index, read_index, write_index
from pipeline.plan.spans import id_of_part, split_address, split_id
from pipeline.plan.units import Clip, Unit
from pipeline.plan.videos import plan_video
from pipeline.progress import Steps, count_in, made_progress
from pipeline.values import DecodedClip, FailedRange, Input, PlannedVideo, TokenSet, VideoInfo, VideoSource

log = logging.getLogger(__name__)
STORE_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A clip on its way to an encoder."""

    clip: DecodedClip
    time: StageTime

    @property
    def num_bytes(self) -> int:
        """Size of its frames."""
        return self.clip.frames.nbytes


@dataclass(frozen=True, slots=True)
class Encoded:
    """A clip on its way to a writer."""

    tokens: TokenSet

    @property
    def num_bytes(self) -> int:
        """Size of its arrays."""
        tokens = self.tokens
        return sum(a.nbytes for a in (tokens.tokens, tokens.sizes, tokens.centers, tokens.group, tokens.pooled))


class DecodeWorker:
    """Scans videos and decodes clips. A video stays open from call to call, as most calls go on with the last one's.

    Args:
        job: What the run is about.
        cpu_clock: What measures the time that decoding takes.
    """

    def __init__(self, job: Job, cpu_clock: Callable[[], float] = time.process_time) -> None:
        import torch

        torch.set_num_threads(1)
        self._job, self._cpu_clock = job, cpu_clock
        self._video: Any = None
        self._video_id = self._uri = ""
        self._unit: Unit | None = None
        self._clips: Iterator[DecodedClip] = iter(())
        self.steps = Steps()

    def start(self) -> None:
        """Load what decoding needs.

        Raises:
            SettingsError: this machine does not see the run folder, or has other code than the driver.
        """
        from pipeline import video

        assert video
        check_code(self._job)
        check_folder(self._job)

    def scan(self, source: Input) -> PlannedVideo:
        """Identify a video, find out what it holds, and store that in the run folder.

        Raises:
            DecodeError: it cannot be read.
            StoreError: the run folder cannot be written.
        """
        from pipeline.inputs.sources import has_changed, identify
        from pipeline.video import scan_video

        with self._at_work():
            try:
                identified = identify(source.uri)
            except (OSError, ValueError) as error:
                raise DecodeError("io", f"cannot be read: {error or type(error).__name__}") from error
            found = replace(identified, stamp=source.stamp)
            out, recipe = self._job.out, self._job.recipe
            info = self._known(found)
            if info is None:
                info = scan_video(found)
                if has_changed(source):
                    raise DecodeError("io", "it changes while it is read: extract it again when it is whole")
                scanned = info
                patiently(lambda: write_index(out, scanned))
            part = replace(found, video_id=id_of_part(found.video_id, split_address(source.uri)[1]))
            return plan_video(replace(info, source=part), fps=recipe.fps, clip_frames=recipe.clip_frames)

    def _known(self, found: VideoSource) -> VideoInfo | None:
        """What an earlier scan of the same content found; None where there was none, or its record is damaged."""
        if not has_index(self._job.out, found.video_id):
            return None
        try:
            return read_index(self._job.out, found.video_id, found.uri)
        except DecodeError as error:
            log.warning("%s; scanned again", error)
            return None

    def decode(self, clip: Clip, uri: str, unit: Unit) -> Decoded:
        """Decode one clip, the first of `unit`; its following clips are expected to be asked for next.

        Raises:
            DecodeError: the clip cannot be decoded.
        """
        from pipeline.inputs.sources import require_unchanged

        with self._at_work():
            watch = Stopwatch(self._cpu_clock)
            try:
                if not self._continues(unit):
                    self._open(uri, unit)
                decoded = next(self._clips)
            except BaseException as error:
                self._unit = None
                if isinstance(error, DecodeError) and error.failure == "corrupt":
                    require_unchanged(self._info.source)
                raise
            self._unit = Unit(unit.video_id, unit.first + 1, unit.count - 1)
            return Decoded(decoded, watch.lap())

    def _continues(self, unit: Unit) -> bool:
        return self._unit is not None and self._unit == unit and unit.count > 0

    def _open(self, uri: str, unit: Unit) -> None:
        from pipeline.inputs.sources import require_unchanged
        from pipeline.plan.clips import plan_clips
        from pipeline.video import open_video, timing_of

        if self._video is None or (self._video_id, self._uri) != (unit.video_id, uri):
            self.close()
            self._info = self._indexed(unit.video_id, uri)
            require_unchanged(self._info.source)
            self._video = open_video(timing_of(self._info)).__enter__()
            self._video_id, self._uri = unit.video_id, uri
        recipe = self._job.recipe
        specs = plan_clips(
            self._info,
            fps=recipe.fps,
            clip_frames=recipe.clip_frames,
            first=unit.first,
            count=unit.count,
            frames=recipe.frames,
        )
        self._clips = self._video.decode(specs, self._job.picture, motion=self._job.wants_motion)

    def _indexed(self, video_id: str, uri: str) -> VideoInfo:
        """What scanning found; found again where it was lost."""
        from pipeline.inputs.sources import identify
        from pipeline.video import scan_video

        try:
            return read_index(self._job.out, video_id, uri)
        except DecodeError as error:
            try:
                found = identify(uri)
            except (OSError, ValueError) as unread:
                raise DecodeError("io", f"cannot be read: {unread or type(unread).__name__}") from error
            if found.video_id != split_id(video_id)[0]:
                raise error
            info = scan_video(found)
            patiently(lambda: write_index(self._job.out, info))
            return replace(info, source=replace(found, video_id=video_id))

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        count_in(self.steps)
        try:
            yield
        except MemoryError as error:
            raise DecodeError("out_of_memory", "decoding needs more memory than a decode worker may have") from error

    def close(self) -> None:
        """Let go of the open video."""
        self._unit = None
        video, self._video = self._video, None
        if video is not None:
            video.__exit__(None, None, None)


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


class WorkerTypes(NamedTuple):
    """What each kind of worker is made of."""

    decode: type[DecodeWorker] = DecodeWorker
    encode: type[EncodeWorker] = EncodeWorker
    write: type[WriteWorker] = WriteWorker


REAL = WorkerTypes()
"""What a run is made by; a benchmark may have others."""


def patiently(write: Callable[[], None]) -> None:
    """Write to the run folder, again while somebody may make room there.

    Raises:
        StoreError: it stays impossible.
    """
    for pause_s in (*STORE_PAUSES_S, None):
        try:
            return write()
        except OSError as error:
            if pause_s is None:
                raise StoreError(f"the run folder cannot be written: {error}") from error
            log.warning("the run folder cannot be written: %s; trying again in %.0f s", error, pause_s)
            made_progress()
            time.sleep(pause_s)


def check_code(job: Job) -> None:
    """Refuse to mix two versions of the project in one run.

    Raises:
        SettingsError: this machine has other code than the driver.
    """
    if code_sha256() != job.code_sha256:
        raise SettingsError(
            f"this node's vtm-pipeline (code {code_sha256()[:12]}) differs from the driver's ({job.code_sha256[:12]}): "
            "install the same version on every node"
        )


def check_folder(job: Job) -> None:
    """Refuse to write where nobody looks.

    Raises:
        SettingsError: this machine does not see the run folder that the driver opened.
    """
    from pipeline.errors import RunFolderError
    from pipeline.shards.run_folder import read_run

    try:
        held = read_run(job.out)["fingerprint"]
    except RunFolderError:
        held = None
    if held != job.run["fingerprint"]:
        raise SettingsError(f"--out {job.out.address} is not shared with this node: name a folder that every node sees")


def problem_of(error: BaseException) -> Problem:
    """An error of a call as its class and one line."""
    text = " ".join(str(error).split())
    if isinstance(error, DecodeError):
        return Problem(error.failure, text)
    if isinstance(error, EncodeError):
        return Problem("encode", text)
    if isinstance(error, MemoryError):
        return Problem("out_of_memory", text or "out of memory")
    if isinstance(error, OSError):
        return Problem("io", text)
    return Problem("crash", f"{type(error).__name__}: {text}")


def forward_logs(say: Callable[[str], None]) -> None:
    """Forward warnings and log lines of this process: nobody reads the standard error of a remote worker."""
    logging.getLogger().addHandler(_Handler(say))
    logging.captureWarnings(True)


class _Handler(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(" ".join(record.getMessage().split()))
