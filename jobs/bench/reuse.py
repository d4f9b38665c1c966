"""`vtm bench reuse`: what it gains and costs not to encode patches again that did not change.

Each clip is decoded once a round, then encoded whole and with each threshold; who begins changes from clip to clip.
Encoding is the whole path from frames to tokens, finding what changed included; end to end adds the decoding. On a CPU
the times are CPU seconds, which decoding and encoding share, by default of one thread, so that waiting does not count;
on a GPU wall seconds. Sums over the clips, medians over the rounds. The cosine is that of each token to the one that
encoding everything gives.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.bench.low_cosine import low_cosine
from jobs.bench.machine import machine_name
from jobs.bench.options import (
    add_clip_options,
    add_encoder_options,
    add_json_option,
    add_repeats_option,
    add_threads_option,
    encoder_of,
)
from jobs.bench.output import Columns, show
from jobs.bench.timing import timed
from jobs.training.device import add_device_option
from pipeline.encode.describe import picture_spec
from pipeline.encode.features import ClipFeatures, VitFeatures
from pipeline.encode.reuse import ReusingFeatures
from pipeline.inputs.sources import identify
from pipeline.plan.clips import plan_clips
from pipeline.video import open_video, scan_video, timing_of
from vtm import Encoder

BATCH_FRAMES = 20


COLUMNS: Columns = {
    "video": lambda row: row["video"],
    "levels": lambda row: f"{row['levels']:g}",
    "encoded": lambda row: f"{row['encoded_share']:.1%}",
    "encoding x": lambda row: f"{row['encode_speedup']:.2f}",
    "end to end x": lambda row: f"{row['end_to_end_speedup']:.2f}",
    "mean cosine": lambda row: f"{row['mean_cosine']:.3f}",
    "5th pct": lambda row: f"{row['p5_cosine']:.3f}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_clip_options(parser, clips=None, which="clips of each video")
    add_encoder_options(parser)
    parser.add_argument(
        "--reuse-levels", type=float, nargs="+", default=(1, 2, 4, 8), help="thresholds to measure, in levels of 255"
    )
    add_repeats_option(parser, 3, "the median counts")
    add_threads_option(parser, 1)
    add_device_option(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    torch.set_num_threads(args.threads)
    encoder = encoder_of(args)
    rows = []
    for video in args.videos:
        for row in _measure(encoder, video, args):
            rows.append({"name": f"levels {row['levels']:g}", "video": Path(video).name, **row})
    show(rows, machine=machine_name(args.device, args.threads, encoder.dtype), as_json=args.json, columns=COLUMNS)
    return 0


@dataclass
class Contender:
    """One way to encode, and what is known of it so far."""

    encode: ReusingFeatures | VitFeatures
    rounds_s: list[float] = field(default_factory=list)
    patches: int = 0
    encoded: int = 0
    cosines: list[Tensor] = field(default_factory=list)


@torch.inference_mode()
def _measure(encoder: Encoder, video: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each threshold."""
    clock = time.process_time if encoder.device.type == "cpu" else time.perf_counter
    whole = Contender(VitFeatures(encoder, BATCH_FRAMES))
    reusing = [Contender(ReusingFeatures(encoder, BATCH_FRAMES, levels)) for levels in args.reuse_levels]
    contenders, decode_rounds_s = [whole, *reusing], []
    for number in range(args.repeats):
        for contender in contenders:
            contender.rounds_s.append(0.0)
        decode_rounds_s.append(0.0)
        for index, (frames, decode_s) in enumerate(_clips(video, encoder, args, clock)):
            decode_rounds_s[-1] += decode_s
            first = (index + number) % len(contenders)
            order = contenders[first:] + contenders[:first]
            features = {id(contender): _encode(contender, frames, encoder.device, clock) for contender in order}
            for contender in reusing if number == 0 else ():
                _compare(contender, features[id(contender)], features[id(whole)].patches_1KD)
    if not whole.rounds_s[-1]:
        raise SystemExit(f"{video}: no clip")
    return [row_of(levels, c, whole, decode_rounds_s) for levels, c in zip(args.reuse_levels, reusing, strict=True)]


def _clips(
    video: str, encoder: Encoder, args: argparse.Namespace, clock: Callable[[], float]
) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """The frames of each clip, and the seconds that their decoding took."""
    info = scan_video(identify(video))
    clips = list(islice(plan_clips(info, fps=args.fps, clip_frames=args.clip_frames), args.clips))
    with open_video(timing_of(info)) as opened:
        start_s = clock()
        for decoded in opened.decode(clips, picture_spec(encoder.image)):
            yield decoded.frames, clock() - start_s
            start_s = clock()


def _encode(
    contender: Contender, frames: NDArray[np.uint8], device: torch.device, clock: Callable[[], float]
) -> ClipFeatures:
    features, encode_s = timed(partial(contender.encode, frames), device, clock)
    contender.rounds_s[-1] += encode_s
    return features


def _compare(contender: Contender, features: ClipFeatures, tokens_1ND: Tensor) -> None:
    contender.patches += tokens_1ND.shape[1]
    contender.encoded += features.encoded_patches or 0
    contender.cosines.append(torch.cosine_similarity(features.patches_1KD, tokens_1ND, dim=-1)[0])


def row_of(levels: float, contender: Contender, whole: Contender, decode_rounds_s: Sequence[float]) -> dict[str, Any]:
    """One threshold's figures, beside encoding everything and decoding in the same rounds."""
    cosine_K = torch.cat(contender.cosines).double()
    decode_s, encode_s, whole_s = median(decode_rounds_s), median(contender.rounds_s), median(whole.rounds_s)
    return {
        "levels": levels,
        "encoded_share": contender.encoded / contender.patches,
        "encode_speedup": whole_s / encode_s,
        "end_to_end_speedup": (decode_s + whole_s) / (decode_s + encode_s),
        "mean_cosine": float(cosine_K.mean()),
        "p5_cosine": low_cosine(cosine_K),
        "decode_s": decode_s,
        "encode_s": encode_s,
        "whole_encode_s": whole_s,
        "patches": contender.patches,
    }
