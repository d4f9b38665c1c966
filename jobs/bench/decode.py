"""`vtm bench decode VIDEO`: sampled frames a second at the encoder's size, with the peers that are installed.

Each row decodes the whole video to its grid, from opening on; starting Python and importing are left out (the ffmpeg
command has next to nothing to start). `key frames alone` is `--frames key`. peak_bytes is the largest resident size of
any one process of the row.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from jobs.bench.machine import machine_name
from jobs.bench.memory import resident_bytes
from jobs.bench.numbers import count
from jobs.bench.options import add_json_option
from jobs.bench.output import Columns, show
from jobs.bench.square import square
from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.inputs.named import VideoSource
from pipeline.plan.clips import plan_clips
from pipeline.values import ClipSpec, DecoderName, FrameChoice, PictureSpec
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video_info import VideoInfo, VideoTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What every row does."""

    video: str
    fps: Fraction
    side_px: int

    @property
    def picture(self) -> PictureSpec:
        """To a square, as most encoders want it."""
        return square(self.side_px)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process did and took."""

    frames: int
    cpu_s: float
    peak_bytes: int


COLUMNS: Columns = {
    "name": lambda row: row["name"],
    "wall s": lambda row: f"{row['wall_s']:.2f}",
    "cpu s": lambda row: f"{row['cpu_s']:.2f}",
    "frames/s": lambda row: f"{row['frames_per_s']:.1f}",
    "x real time": lambda row: f"{row['times_real_time']:.1f}",
    "peak MB": lambda row: f"{row['peak_bytes'] / 1e6:.0f}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("video", help="a local file")
    parser.add_argument("--fps", type=Fraction, default=Fraction(1), help="frames sampled per second of video")
    parser.add_argument("--size-px", type=count, default=224, help="side of the pictures in pixels")
    parser.add_argument(
        "--workers", type=count, nargs="+", default=(1, 2), help="numbers of decoding processes to measure"
    )
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    if not Path(args.video).is_file():
        raise InputError(f"no such file: {args.video}; name a local video")
    request = Request(video=str(Path(args.video).resolve()), fps=args.fps, side_px=args.size_px)
    info = scan_video(_source(request.video))
    video_s = float((info.last_pts - info.start_pts) * info.time_base)
    measured = [_row(name, measure, request, video_s) for name, measure in _measures(args.workers)]
    rows = [row for row in measured if row is not None]
    show(
        rows,
        machine=machine_name(),
        as_json=args.json,
        columns=COLUMNS,
        title=f"{info.codec} {info.width_px}x{info.height_px}, {video_s:.0f} s at {args.fps} fps",
        more={"video_s": video_s, "codec": info.codec},
    )
    return 0


Measure = Callable[[Request], tuple[float, list[Cost]]]


def _measures(workers: Sequence[int]) -> list[tuple[str, Measure]]:
    """Rows that this machine can measure."""
    found: list[tuple[str, Measure]] = [
        (f"vtm, {counted(count, 'worker')}", partial(_measure_own, workers=count)) for count in workers
    ]
    found.append(("vtm, key frames alone", partial(_measure_own, workers=1, frames="key")))
    if torch.cuda.is_available():
        found.append(("vtm, NVDEC, 1 worker", partial(_measure_own, workers=1, decoder="nvdec")))
    if shutil.which("ffmpeg"):
        found += [(f"ffmpeg, {counted(n, 'thread')}", partial(_measure_ffmpeg, threads=n)) for n in (1, 2)]
    peers = {"torchcodec": ("torchcodec", torchcodec_frames), "decord": ("decord", decord_frames)}
    peers["opencv"] = ("cv2", opencv_frames)
    found += [
        (name, partial(_measure_peer, frames=frames))
        for name, (module, frames) in peers.items()
        if importlib.util.find_spec(module)
    ]
    return found


def _row(name: str, measure: Measure, request: Request, video_s: float) -> dict[str, Any] | None:
    """One measurement; None, with a word on stderr, where a peer cannot decode the video."""
    try:
        wall_s, costs = measure(request)
    # Each peer fails with errors of its own, without a common class below Exception.
    except Exception as error:
        if name.startswith("vtm"):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(f"{name} cannot decode {request.video}: {reason}", file=sys.stderr)
        return None
    frames = sum(cost.frames for cost in costs)
    if not frames:
        print(f"{name} gives no frame of {request.video}", file=sys.stderr)
        return None
    return {
        "name": name,
        "frames": frames,
        "cpu_s": sum(cost.cpu_s for cost in costs),
        "wall_s": wall_s,
        "frames_per_s": frames / wall_s,
        "times_real_time": video_s / wall_s,
        "peak_bytes": max(cost.peak_bytes for cost in costs),
    }


def _measure_own(
    request: Request, *, workers: int, frames: FrameChoice = "exact", decoder: DecoderName = "libav"
) -> tuple[float, list[Cost]]:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(_warm_up, range(workers)))
        started = time.perf_counter()
        info, scan_cost = pool.submit(_scan, request.video).result()
        clips = plan_clips(info, fps=request.fps, clip_frames=60, frames=frames)
        share = -(-len(clips) // workers)
        parts = [clips[first : first + share] for first in range(0, len(clips), share)]
        futures = [pool.submit(_decode, timing_of(info), part, request.picture, decoder) for part in parts]
        costs = [scan_cost, *(future.result() for future in futures)]
        return time.perf_counter() - started, costs


def _warm_up(number: int) -> int:
    torch.set_num_threads(1)
    # Long enough for the pool to start every process.
    time.sleep(0.5)
    return number


def _source(video: str) -> VideoSource:
    return VideoSource(video_id="0" * 32, uri=video, size_bytes=Path(video).stat().st_size)


def _scan(video: str) -> tuple[VideoInfo, Cost]:
    before = time.process_time()
    info = scan_video(_source(video))
    return info, Cost(0, time.process_time() - before, resident_bytes("VmHWM"))


def _decode(timing: VideoTiming, clips: Sequence[ClipSpec], picture: PictureSpec, decoder: DecoderName) -> Cost:
    before = time.process_time()
    with open_video(timing, decoder) as video:
        frames = sum(len(clip.frames) for clip in video.decode(clips, picture))
    return Cost(frames, time.process_time() - before, resident_bytes("VmHWM"))


def _measure_ffmpeg(request: Request, *, threads: int) -> tuple[float, list[Cost]]:
    side = request.side_px
    command = ["ffmpeg", "-nostdin", "-v", "error", "-threads", str(threads), "-i", request.video, "-an"]
    command += ["-filter_threads", str(threads), "-vf", f"fps={request.fps},scale={side}:{side}"]
    command += ["-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        sent_bytes = 0
        while block := process.stdout.read(1 << 20):
            sent_bytes += len(block)
        usage = os.wait4(process.pid, 0)[2]
        process.returncode = 0
    cost = Cost(sent_bytes // (3 * side * side), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
    return time.perf_counter() - started, [cost]


def _measure_peer(request: Request, *, frames: Callable[[Request], int]) -> tuple[float, list[Cost]]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_import_peer, frames.__name__).result()
        wall_s, cost = pool.submit(_run_peer, frames, request).result()
    return wall_s, [cost]


def _import_peer(function: str) -> None:
    importlib.import_module({"opencv_frames": "cv2"}.get(function, function.removesuffix("_frames")))


def _run_peer(frames: Callable[[Request], int], request: Request) -> tuple[float, Cost]:
    started, before = time.perf_counter(), time.process_time()
    count = frames(request)
    return time.perf_counter() - started, Cost(count, time.process_time() - before, resident_bytes("VmHWM"))


def torchcodec_frames(request: Request) -> int:
    """One thread, the frames on display at the grid's instants, resized with antialiasing."""
    from torch.nn import functional as F
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(request.video, num_ffmpeg_threads=1, dimension_order="NHWC")
    end_s, count = float(decoder.metadata.end_stream_seconds or 0), 0
    while (instant_s := float(count / request.fps)) < end_s:
        picture = decoder.get_frame_played_at(instant_s).data.permute(2, 0, 1)[None]
        F.interpolate(picture, size=(request.side_px, request.side_px), mode="bicubic", antialias=True)
        count += 1
    return count


def decord_frames(request: Request) -> int:
    """One thread, frame numbers at the mean rate, resized by the reader."""
    import decord

    reader = decord.VideoReader(request.video, width=request.side_px, height=request.side_px, num_threads=1)
    step = reader.get_avg_fps() / float(request.fps)
    numbers = [int(i * step) for i in range(int((len(reader) - 1) / step) + 1)]
    for first in range(0, len(numbers), 60):
        reader.get_batch(numbers[first : first + 60]).asnumpy()
    return len(numbers)


def opencv_frames(request: Request) -> int:
    """All frames grabbed, those at the mean rate retrieved and resized by area."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(request.video, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    step = capture.get(cv2.CAP_PROP_FPS) / float(request.fps)
    number = count = 0
    while capture.grab():
        if number >= count * step:
            picture = capture.retrieve()[1]
            cv2.resize(picture, (request.side_px, request.side_px), interpolation=cv2.INTER_AREA)
            count += 1
        number += 1
    return count
