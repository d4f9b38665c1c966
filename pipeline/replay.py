"""One call of a run again, in this process: what a recorded failure is looked into with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, SettingsError
from pipeline.plan.index_file import read_index
from pipeline.shards.run_folder import clip_of_run, picture_of, read_state
from pipeline.sources import identify
from pipeline.values import DecodedClip, PlannedVideo
from pipeline.video import open_video, scan_video, timing_of


def replay_scan(out: Path, video_id: str) -> str:
    """Scan a video of the plan again; what it holds, in one line.

    Raises:
        InputError: the plan has no such video.
        DecodeError: it cannot be scanned.
    """
    video = _planned(out, video_id)
    info = scan_video(identify(video.source.uri))
    return (
        f"{video.source.uri}: {info.codec}, {info.width_px}x{info.height_px}, {info.frames_found} frames, "
        f"{len(info.key_pts)} key frames{''.join('; ' + warning for warning in info.warnings)}"
    )


def replay_clip(out: Path, video_id: str, index: str, *, encode: bool) -> str:
    """Decode a clip of the plan again, and encode it; what came of it, in one line.

    Raises:
        InputError: the plan has no such clip.
        DecodeError, EncodeError: it cannot be decoded or encoded.
    """
    video = _planned(out, video_id)
    if not index.isdigit() or int(index) >= video.num_clips:
        raise InputError(f"{video_id}-{index} is no clip: the video has {video.num_clips}, from 000000 on")
    state = read_state(out)
    info = read_index(out, video_id, video.source.uri)
    spec = clip_of_run(state.run, info, int(index))
    with open_video(timing_of(info)) as opened:
        motion = state.run["settings"]["strategy"] == "motion"
        clip = next(iter(opened.decode([spec], picture_of(state.run), motion=motion)))
    text = f"{clip.spec.clip_id}: {len(clip.frames)} frames decoded, {clip.damaged_frames} damaged"
    return f"{text}; {_encoded(state.run, clip, video.source.uri)}" if encode else text


def _encoded(run: dict[str, Any], clip: DecodedClip, uri: str) -> str:
    from pipeline.describe import describe_encoder
    from pipeline.devices import this_device
    from pipeline.encode import ClipEncoder
    from pipeline.settings import Recipe, build

    recipe = build(Recipe, run["settings"])
    description, _ = describe_encoder(recipe, this_device(run["encoder"]["device"]))
    if description.weights_sha256 != run["encoder"]["weights_sha256"]:
        raise SettingsError(f"--encoder {recipe.encoder} is not the run's any more: its weights differ")
    description = replace(description, compute_dtype=run["encoder"]["compute_dtype"])
    tokens = ClipEncoder(recipe, description, description.device).encode(clip, uri)
    return f"{len(tokens.sizes)} tokens for {len(tokens.group)} patches, fidelity {tokens.fidelity:.3f}"


def _planned(out: Path, video_id: str) -> PlannedVideo:
    videos = read_state(out).plan.videos
    if video_id not in videos:
        raise InputError(f"{video_id} is no video of {out}: `vtm inspect {out} --json` lists them")
    return videos[video_id]
