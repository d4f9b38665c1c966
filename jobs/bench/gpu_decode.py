"""Clips decoded by libavcodec and by NVDEC: how fast, at what CPU time, and how far the pictures lie apart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from jobs.bench.square import square
from pipeline.inputs.sources import identify
from pipeline.plan.clips import plan_clips
from pipeline.settings import Recipe
from pipeline.values import DecodedClip, DecoderName
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video_info import VideoInfo

SIDE_PX = 224
MOST_LEVELS = 8
"""Of 255, between the two conversions to RGB; more is another picture."""


def decode_by_both(recipe: Recipe, video: str, num_clips: int) -> list[dict[str, Any]]:
    """Decode the first clips with each decoder, twice: a GPU's first pass loads kernels, and the second must equal it.

    Args:
        recipe: its clips.
        video: file or address.
        num_clips: how many, from the video's start; fewer where it is shorter.

    Returns:
        A row a decoder; the second says how far its pictures lie from the first's.

    Raises:
        RuntimeError: they show different pictures, or the same decoder does not repeat itself.
    """
    info = scan_video(identify(video))
    rows: list[dict[str, Any]] = []
    shown: dict[DecoderName, list[NDArray[np.uint8]]] = {}
    for decoder in get_args(DecoderName):
        frames = [clip.frames for clip in _decoded(info, recipe, decoder, num_clips)]
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        again = [clip.frames for clip in _decoded(info, recipe, decoder, num_clips)]
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        if not all(np.array_equal(one, other) for one, other in zip(frames, again, strict=True)):
            raise RuntimeError(f"{decoder} gives other pictures when it decodes the clips again")
        shown[decoder] = frames
        rows.append({"name": decoder, "wall_s": wall_s, "cpu_s": cpu_s, "frames_per_s": sum(map(len, frames)) / wall_s})
    apart = np.concatenate(
        [np.abs(a.astype(np.int16) - b).ravel() for a, b in zip(shown["libav"], shown["nvdec"], strict=True)]
    )
    rows[-1] |= {"mean_levels_apart": float(apart.mean()), "most_levels_apart": int(apart.max())}
    if apart.max() > MOST_LEVELS:
        raise RuntimeError(f"pictures of NVDEC lie up to {apart.max()} levels from those of libavcodec: {rows}")
    return rows


def _decoded(info: VideoInfo, recipe: Recipe, decoder: DecoderName, num_clips: int) -> Iterator[DecodedClip]:
    specs = plan_clips(info, fps=recipe.fps, clip_frames=recipe.clip_frames)[:num_clips]
    with open_video(timing_of(info), decoder) as video:
        yield from video.decode(specs, square(SIDE_PX))
