"""Clips through an encoder under torch's profiler: how busy the device is, with what, and how much video it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from jobs.bench.timing import timed, wait_for
from pipeline.counted import counted
from pipeline.encode.clip_encoder import ClipEncoder
from pipeline.encode.describe import describe_encoder
from pipeline.encode.devices import this_device
from pipeline.inputs.sources import identify
from pipeline.plan.clips import plan_clips
from pipeline.settings import Recipe
from pipeline.values import DecodedClip
from pipeline.video import open_video, scan_video, timing_of

KERNELS_SHOWN = 12


def profile(recipe: Recipe, video: str, device: str, num_clips: int) -> list[dict[str, Any]]:
    """Decode clips, then encode them twice: timed, then profiled.

    Args:
        recipe: of the run.
        video: file or address.
        device: cuda or cpu.
        num_clips: how many, from the video's start; fewer where it is shorter.

    Returns:
        Rows: the whole, and the kernels that took most of it.
    """
    description, picture = describe_encoder(recipe, this_device(device))
    encoder = ClipEncoder(recipe, description, device)
    info = scan_video(identify(video))
    with open_video(timing_of(info)) as opened:
        specs = plan_clips(info, fps=recipe.fps, clip_frames=recipe.clip_frames)[:num_clips]
        clips = list(opened.decode(specs, picture))
    _encode(encoder, clips[:1] * 3)
    _, wall_s = timed(partial(_encode, encoder, clips), torch.device(device))
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with torch_profile(activities=activities) as recorded:
        _encode(encoder, clips)
        wait_for(torch.device(device))
    spans = [
        (event.time_range.start, event.time_range.end, event.name)
        for event in recorded.events() or ()
        if (event.device_type == DeviceType.CUDA) == (device == "cuda")
    ]
    video_s = sum(clip.spec.end_ns - clip.spec.start_ns for clip in clips) / 1e9
    whole: dict[str, Any] = {
        "name": f"{counted(len(clips), 'clip')} of {counted(recipe.clip_frames, 'frame')}",
        "clips_per_s": len(clips) / wall_s,
        "video_hours_per_device_hour": video_s / wall_s,
    }
    if device == "cuda":
        whole["busy_share"] = busy_share([(start, end) for start, end, _ in spans])
    time_us: Counter[str] = Counter()
    for start, end, name in spans:
        time_us[name[:80]] += end - start
    total_us = sum(time_us.values())
    return [whole] + [
        {"name": name, "encode_share": spent_us / total_us} for name, spent_us in time_us.most_common(KERNELS_SHOWN)
    ]


def busy_share(spans_us: Sequence[tuple[float, float]]) -> float:
    """Share of the time from the first start to the last end in which at least one span is open."""
    busy_us, end_us = 0.0, float("-inf")
    ordered = sorted(spans_us)
    for start_us, stop_us in ordered:
        busy_us += max(0.0, stop_us - max(start_us, end_us))
        end_us = max(end_us, stop_us)
    return busy_us / (end_us - ordered[0][0])


def _encode(encoder: ClipEncoder, clips: Sequence[DecodedClip]) -> None:
    """As an engine does on a GPU: the next clip is launched before the last one is waited for."""
    launched = None
    for clip in clips:
        next_one = encoder.launch(clip)
        if launched is not None:
            encoder.finish(launched, "")
        launched = next_one
    if launched is not None:
        encoder.finish(launched, "")
