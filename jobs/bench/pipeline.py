"""`vtm bench pipeline`: a whole extraction on both engines, beside a plain script that decodes, then encodes."""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jobs.bench.machine import machine_name
from jobs.bench.memory import resident_bytes
from jobs.bench.options import add_json_option
from jobs.bench.output import show
from jobs.options import add_recipe_options, settings_of
from jobs.progress import Silence
from jobs.rates import Rates
from pipeline.settings import EngineName, Execution, Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A video and the recipe."""
    parser.add_argument("inputs", nargs=1, metavar="VIDEO", help="one video")
    add_json_option(parser)
    parser.add_argument("--gpus", type=int, help="GPUs to encode on")
    add_recipe_options(parser)
    parser.set_defaults(config=None)


def run(options: argparse.Namespace) -> int:
    """Measure one after the other."""
    (video,), _, recipe, execution = settings_of(options)
    rows = measure(video, recipe, execution)
    rates = Rates(
        device=rows[0]["device"],
        encode_frames_per_s=rows[0]["frames"] / rows[0]["encode_s"],
        decode_core_s_per_video_s=rows[1]["decode_cpu_s"] / rows[0]["video_s"],
        cores=os.cpu_count() or 1,
        source=f"vtm bench pipeline {video}",
    )
    show(rows, machine=machine_name(rows[0]["device"]), as_json=options.json, more={"rates": asdict(rates)})
    return 0


def measure(video: str, recipe: Recipe, execution: Execution) -> list[dict[str, Any]]:
    """The rows; without Ray where it is not installed."""
    rows = [_plain_script(video, recipe, execution)]
    engines: tuple[EngineName, ...] = ("inline", "ray") if is_ray_installed() else ("inline",)
    return rows + [_extraction(video, recipe, replace(execution, engine=engine)) for engine in engines]


def is_ray_installed() -> bool:
    """Whether there is a second engine to measure."""
    return importlib.util.find_spec("ray") is not None


def _plain_script(video: str, recipe: Recipe, execution: Execution) -> dict[str, Any]:
    """What one would write without this project: all clips decoded, then all encoded and merged."""
    import torch

    from pipeline.encode.clip_encoder import ClipEncoder
    from pipeline.encode.describe import describe_encoder
    from pipeline.encode.devices import this_device
    from pipeline.inputs.sources import identify
    from pipeline.plan.clips import plan_clips
    from pipeline.video import open_video, scan_video, timing_of

    on_gpu = torch.cuda.is_available() and execution.gpus != 0
    description, picture = describe_encoder(recipe, this_device("cuda" if on_gpu else "cpu"))
    encoder = ClipEncoder(recipe, description, description.device)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    info = scan_video(identify(video))
    with open_video(timing_of(info), picture.decoder) as source:
        clips = list(source.decode(plan_clips(info, fps=recipe.fps, clip_frames=recipe.clip_frames), picture))
    decoded_s = time.perf_counter()
    for clip in clips:
        encoder.encode(clip, video)
    ended_s = time.perf_counter()
    return {
        "name": "plain script",
        "device": description.device,
        "frames": sum(len(clip.frames) for clip in clips),
        "video_s": float((info.last_pts - info.start_pts) * info.time_base),
        "wall_s": ended_s - began_s,
        "decode_s": decoded_s - began_s,
        "encode_s": ended_s - decoded_s,
        "cpu_s": time.process_time() - began_cpu_s,
        "peak_bytes": resident_bytes("VmHWM"),
    }


def _extraction(video: str, recipe: Recipe, execution: Execution) -> dict[str, Any]:
    from pipeline.run import extract

    with tempfile.TemporaryDirectory() as folder:
        tally = extract([video], Path(folder) / "out", recipe, execution, Silence()).tally
    return {
        "name": f"vtm, {execution.engine}",
        "wall_s": tally.wall_s,
        "startup_s": tally.startup_s,
        "decode_cpu_s": tally.decode.cpu_s,
        "encode_cpu_s": tally.encode.cpu_s,
        "write_cpu_s": tally.write.cpu_s,
        "efficiency": tally.efficiency,
    }
