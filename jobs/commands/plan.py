"""`vtm plan`: what a run would do, from packets and headers alone; longest video first."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass, replace

from jobs.options import add_execution_options, add_recipe_options, settings_of
from jobs.table import print_table
from pipeline.errors import SettingsError
from pipeline.settings import Recipe

TYPICAL_SHARE = 0.1
"""Of the tokens, where a fidelity is asked for: what is left depends on pixels that a plan does not see."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Inputs and every setting; nothing is written."""
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="file, folder, glob, list file or address")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--frames-per-s", type=float, default=None, metavar="F", help="encoder speed, to estimate the time it takes"
    )
    add_recipe_options(parser)
    add_execution_options(parser)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one video comes to."""

    uri: str
    codec: str
    duration_s: float
    clips: int
    frames: int
    tokens: int
    size_bytes: int
    problem: str = ""


def run(options: argparse.Namespace) -> int:
    """Print the table; exit code 3 when some input cannot be read."""
    inputs, _, recipe, _ = settings_of(options)
    if not inputs:
        raise SettingsError("no input was given: name a video, a folder, a glob, a list file or an address")
    rows = estimate(inputs, recipe)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print_table(
            ["video", "codec", "length s", "clips", "frames", "tokens", "MB", ""],
            [
                [
                    r.uri,
                    r.codec,
                    f"{r.duration_s:.1f}",
                    r.clips,
                    r.frames,
                    r.tokens,
                    f"{r.size_bytes / 1e6:.1f}",
                    r.problem,
                ]
                for r in rows
            ],
        )
        frames = sum(row.frames for row in rows)
        print(
            f"{len(rows)} videos, {sum(r.duration_s for r in rows) / 3600:.2f} h, {sum(r.clips for r in rows)} clips, "
            f"{frames} frames to encode, {sum(r.tokens for r in rows)} tokens, "
            f"{sum(r.size_bytes for r in rows) / 1e6:.1f} MB"
        )
        if options.frames_per_s:
            print(f"encoding at {options.frames_per_s:g} frames a second: {frames / options.frames_per_s / 3600:.2f} h")
    return 3 if any(row.problem for row in rows) else 0


def estimate(inputs: list[str], recipe: Recipe) -> list[Estimate]:
    """Scan and plan every input in this process, longest first."""
    from pipeline.encode.describe import describe_encoder
    from pipeline.encode.devices import this_device
    from pipeline.errors import DecodeError
    from pipeline.inputs.sources import find_inputs, identify
    from pipeline.plan.clips import plan_clips
    from pipeline.plan.spans import id_of_part, split_address
    from pipeline.plan.videos import plan_video
    from pipeline.values import FailedRange
    from pipeline.video import scan_video
    from vtm.network import load_network
    from vtm.network import tokens_left as network_tokens_left

    encoder, picture = describe_encoder(recipe, this_device("cpu"))
    folder = recipe.vtm if encoder.vtm_decides_count else None
    network = None if folder is None else load_network(folder).config
    rows = []
    seen = set()
    for source in find_inputs(inputs):
        if isinstance(source, FailedRange):
            rows.append(_failed(source.uri, source.message))
            continue
        try:
            identified = identify(source.uri)
            part_id = id_of_part(identified.video_id, split_address(source.uri)[1])
            if part_id in seen:
                continue
            seen.add(part_id)
            info = scan_video(identified)
            info = replace(info, source=replace(info.source, video_id=part_id))
            video = plan_video(info, fps=recipe.fps, clip_frames=recipe.clip_frames)
        except (DecodeError, OSError) as error:
            failure = f"[{error.failure}] " if isinstance(error, DecodeError) else ""
            rows.append(_failed(source.uri, f"{failure}{error}"))
            continue
        clips = plan_clips(info, fps=recipe.fps, clip_frames=recipe.clip_frames)
        frames = [len(clip.frame_pts) for clip in clips]
        steps = [-(-count // encoder.frames_per_token_row) for count in frames]
        sources = [count * picture.grid_hw[0] * picture.grid_hw[1] for count in steps]
        if network is None:
            tokens = [tokens_left(recipe, count) for count in sources]
        else:
            tokens = [network_tokens_left(network, (count, *picture.grid_hw)) for count in steps]
        per_token = encoder.dim * _itemsize(recipe) + 4 + 12 + (2 + 4 if recipe.strategy == "tree" else 0)
        rows.append(
            Estimate(
                uri=source.uri,
                codec=video.codec,
                duration_s=(video.end_ns - video.start_ns) / 1e9 if video.first_instant else video.duration_found_s,
                clips=video.num_clips,
                frames=sum(frames),
                tokens=sum(tokens),
                size_bytes=sum(tokens) * per_token + sum(sources) * 2,
            )
        )
    return sorted(rows, key=lambda row: -row.duration_s)


def _failed(uri: str, problem: str) -> Estimate:
    return Estimate(uri=uri, codec="", duration_s=0, clips=0, frames=0, tokens=0, size_bytes=0, problem=problem)


def _itemsize(recipe: Recipe) -> int:
    return {"int8": 1, "float32": 4}.get(recipe.dtype, 2)


def tokens_left(recipe: Recipe, num_sources: int) -> int:
    """Tokens that a clip of so many source patches keeps."""
    from vtm.budget import Budget, num_merged

    if recipe.strategy == "none":
        return num_sources
    if recipe.fidelity is not None:
        return math.ceil(num_sources * TYPICAL_SHARE)
    budget = Budget(
        partition_factor=recipe.partition_factor,
        keep=recipe.share_kept,
        num_tokens=recipe.tokens_per_clip,
        merge_share=recipe.merge_share,
    )
    return num_sources - num_merged(num_sources - budget.targets(num_sources), recipe.merge_share)
