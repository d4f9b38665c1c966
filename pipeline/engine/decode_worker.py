"""What a decode worker does, in any executor: it scans videos, and decodes their clips."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.encode.devices import require_device
from pipeline.engine.indexing import info_to_decode, scan_input
from pipeline.engine.job import Job, StageTime, Stopwatch
from pipeline.engine.joining import check_code, check_folder
from pipeline.errors import DecodeError
from pipeline.inputs.named import Input
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import Clip, Unit
from pipeline.plan.videos import plan_video
from pipeline.progress import Steps, count_in
from pipeline.values import DecodedClip


@dataclass(frozen=True, slots=True)
class Decoded:
    """A clip on its way to an encoder."""

    clip: DecodedClip
    time: StageTime

    @property
    def num_bytes(self) -> int:
        """Size of its frames."""
        return self.clip.frames.nbytes


class DecodeWorker:
    """Scans videos and decodes clips. A video stays open from call to call, as most calls go on with the last one's.

    Args:
        job: What the run is about.
        cpu_clock: What measures the time that decoding takes.
    """

    def __init__(self, job: Job, cpu_clock: Callable[[], float] = time.process_time) -> None:
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
            SettingsError: this machine does not see the run folder, has other code than the driver, or lacks the GPU
                that is to decode.
        """
        from pipeline import video

        check_code(self._job)
        check_folder(self._job)
        if self._job.picture.decoder == "nvdec":
            video.gpu_of_nvdec()

    def scan(self, source: Input) -> PlannedVideo:
        """Identify a video, find out what it holds, and store that in the run folder.

        Raises:
            DecodeError: it cannot be read.
            StoreError: the run folder cannot be written.
        """
        with self._at_work():
            recipe = self._job.recipe
            info = scan_input(self._job.out, source)
            return plan_video(info, fps=recipe.fps, clip_frames=recipe.clip_frames)

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
            self._info = info_to_decode(self._job.out, unit.video_id, uri)
            require_unchanged(self._info.source)
            self._video = open_video(timing_of(self._info), self._job.picture.decoder).__enter__()
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

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        count_in(self.steps)
        try:
            yield
        except MemoryError as error:
            raise DecodeError("out_of_memory", "decoding needs more memory than a decode worker may have") from error
        except torch.OutOfMemoryError as error:
            raise DecodeError("out_of_memory", "the GPU has no memory left to decode in") from error
        except RuntimeError:
            require_device("cuda" if self._job.picture.decoder == "nvdec" else "cpu")
            raise

    def close(self) -> None:
        """Let go of the open video."""
        self._unit = None
        video, self._video = self._video, None
        if video is not None:
            video.__exit__(None, None, None)
