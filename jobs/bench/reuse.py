"""`vtm bench reuse`: what it gains and costs not to encode patches again that did not change.

Each clip is decoded once a round, then encoded whole and with each threshold; who begins changes from clip to clip.
Encoding is the whole path from frames to tokens, finding what changed included; end to end adds the decoding. On a CPU
the times are CPU seconds, which decoding and encoding share, by default of one thread, so that waiting does not count;
on a GPU wall seconds. Sums over the clips, medians over the rounds. The cosine is that of each token to the one that
encoding everything gives.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.encode.describe import picture_spec
from pipeline.encode.devices import resolve_compute_dtype, this_device
from pipeline.encode.features import ClipFeatures, VitFeatures
from pipeline.encode.reuse import ReusingFeatures
from pipeline.inputs.sources import identify
from pipeline.plan.clips import plan_clips
from pipeline.video import open_video, scan_video, timing_of
from vtm import Encoder, load_encoder

BATCH_FRAMES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="files or addresses")
    parser.add_argument("--encoder", required=True, help="folder or hub id")
    parser.add_argument("--layer", type=int, default=9, help="block whose output is taken")
    parser.add_argument("--levels", type=float, nargs="+", default=(1, 2, 4, 8), help="thresholds to measure")
    parser.add_argument("--fps", type=Fraction, default=Fraction(1))
    parser.add_argument("--clip-frames", type=int, default=60)
    parser.add_argument("--clips", type=int, help="clips of each video, from its start; all where nothing is said")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, resolve_compute_dtype("auto", this_device(args.device)))
    encoder = load_encoder(args.encoder, layer=args.layer, dtype=dtype, device=args.device)
    rows = []
    for video in args.videos:
        for row in _measure(encoder, video, args):
            rows.append({"name": f"levels {row['levels']:g}", "video": Path(video).name, **row})
            if not args.json:
                print(
                    "{video:28} levels {levels:4g}  encoded {encoded_share:6.1%}  encoding x {encode_speedup:5.2f}  "
                    "end to end x {end_to_end_speedup:5.2f}  cosine {mean_cosine:.3f} / {p5_cosine:.3f}".format(
                        **rows[-1]
                    )
                )
    if args.json:
        machine = f"{args.device} {platform.machine()}, {args.threads} threads, torch {torch.__version__}, {dtype}"
        print(json.dumps({"machine": machine, "rows": rows}))
    return 0


@dataclass
class _Contender:
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
    whole = _Contender(VitFeatures(encoder, BATCH_FRAMES))
    reusing = [_Contender(ReusingFeatures(encoder, BATCH_FRAMES, levels)) for levels in args.levels]
    contenders, decode_rounds_s = [whole, *reusing], []
    for number in range(args.rounds):
        for contender in contenders:
            contender.rounds_s.append(0.0)
        decode_rounds_s.append(0.0)
        for index, (frames, decode_s) in enumerate(_clips(video, encoder, args, clock)):
            decode_rounds_s[-1] += decode_s
            first = (index + number) % len(contenders)
            order = contenders[first:] + contenders[:first]
            features = {id(contender): _encode(contender, frames, clock) for contender in order}
            for contender in reusing if number == 0 else ():
                _compare(contender, features[id(contender)], features[id(whole)].patches_1KD)
    if not whole.rounds_s[-1]:
        raise SystemExit(f"{video}: no clip")
    return [_row(levels, c, whole, decode_rounds_s) for levels, c in zip(args.levels, reusing, strict=True)]


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


def _encode(contender: _Contender, frames: NDArray[np.uint8], clock: Callable[[], float]) -> ClipFeatures:
    start_s = clock()
    features = contender.encode(frames)
    if features.patches_1KD.device.type == "cuda":
        torch.cuda.synchronize(features.patches_1KD.device)
    contender.rounds_s[-1] += clock() - start_s
    return features


def _compare(contender: _Contender, features: ClipFeatures, tokens_1ND: Tensor) -> None:
    contender.patches += tokens_1ND.shape[1]
    contender.encoded += features.encoded_patches or 0
    contender.cosines.append(torch.cosine_similarity(features.patches_1KD, tokens_1ND, dim=-1)[0])


def _row(levels: float, contender: _Contender, whole: _Contender, decode_rounds_s: Sequence[float]) -> dict[str, Any]:
    cosine_K = torch.cat(contender.cosines).double()
    decode_s, encode_s, whole_s = median(decode_rounds_s), median(contender.rounds_s), median(whole.rounds_s)
    return {
        "levels": levels,
        "encoded_share": contender.encoded / contender.patches,
        "encode_speedup": whole_s / encode_s,
        "end_to_end_speedup": (decode_s + whole_s) / (decode_s + encode_s),
        "mean_cosine": float(cosine_K.mean()),
        "p5_cosine": float(cosine_K.kthvalue(max(1, round(0.05 * len(cosine_K)))).values),
        "decode_s": decode_s,
        "encode_s": encode_s,
        "whole_encode_s": whole_s,
        "patches": contender.patches,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench on its own."""
    parser = argparse.ArgumentParser(prog="vtm bench reuse", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    return run(parser.parse_args(argv))
