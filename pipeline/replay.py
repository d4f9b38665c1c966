"""One call of a run again, in this process: what a recorded failure is looked into with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.counted import counted
from pipeline.errors import InputError, SettingsError
from pipeline.inputs.sources import identify
from pipeline.plan.index_file import read_index
from pipeline.plan.planned_video import PlannedVideo
from pipeline.shards.run_folder import RunState, clip_of_run, picture_of, read_state
from pipeline.store import Where
from pipeline.values import DecodedClip
from pipeline.video import open_video, scan_video, timing_of

if TYPE_CHECKING:
    from pipeline.encode.clip_encoder import ClipEncoder


def replay_scan(out: Where, video_id: str) -> str:
    """Scan a video of the plan again; what it holds, in one line.

    Raises:
        InputError: the plan has no such video.
        DecodeError: it cannot be scanned.
    """
    video = _planned(read_state(out), video_id)
    info = scan_video(identify(video.source.uri))
    return (
        f"{video.source.uri}: {info.codec}, {info.width_px}x{info.height_px}, {counted(info.frames_found, 'frame')}, "
        f"{counted(len(info.key_pts), 'key frame')}{''.join('; ' + warning for warning in info.warnings)}"
    )


def replay_clip(out: Where, video_id: str, index: str, *, encode: bool) -> str:
    """Decode a clip of the plan again, and encode it; what came of it, in one line.

    Raises:
        InputError: the plan has no such clip.
        DecodeError, EncodeError: it cannot be decoded or encoded.
    """
    state = read_state(out)
    video = _planned(state, video_id)
    if not index.isdigit() or int(index) >= video.num_clips:
        raise InputError(f"{video_id}-{index} is no clip: the video has {video.num_clips}, from 000000 on")
    clip = decode_again(state, video, int(index))
    text = f"{clip.spec.clip_id}: {counted(len(clip.frames), 'frame')} decoded, {clip.damaged_frames} damaged"
    if not encode:
        return text
    tokens = encoder_of(state.run).encode(clip, video.source.uri)
    held, patches = counted(len(tokens.sizes), "token"), counted(len(tokens.group), "patch")
    return f"{text}; {held} for {patches}, fidelity {tokens.fidelity:.3f}"


def decode_again(state: RunState, video: PlannedVideo, index: int) -> DecodedClip:
    """Decode one clip of the plan.

    Raises:
        DecodeError: it cannot be decoded.
    """
    info = read_index(state.store, video.source.video_id, video.source.uri)
    spec = clip_of_run(state.run, info, index)
    picture = picture_of(state.run)
    with open_video(timing_of(info), picture.decoder) as opened:
        motion = state.run["settings"]["strategy"] == "motion"
        return next(iter(opened.decode([spec], picture, motion=motion)))


def encoder_of(run: dict[str, Any]) -> ClipEncoder:
    """The encoder of a run, loaded.

    Raises:
        SettingsError: it cannot be had, or is another by now.
    """
    from pipeline.encode.clip_encoder import ClipEncoder
    from pipeline.encode.describe import describe_encoder
    from pipeline.encode.devices import this_device
    from pipeline.read_settings import build
    from pipeline.settings import Recipe

    recipe = build(Recipe, run["settings"])
    description, _ = describe_encoder(recipe, this_device(run["encoder"]["device"]))
    if description.weights_sha256 != run["encoder"]["weights_sha256"]:
        raise SettingsError(f"--encoder {recipe.encoder} is not the run's any more: its weights differ")
    description = replace(description, compute_dtype=run["encoder"]["compute_dtype"])
    return ClipEncoder(recipe, description, description.device)


def _planned(state: RunState, video_id: str) -> PlannedVideo:
    videos = state.plan.videos
    if video_id not in videos:
        out = state.store.address
        raise InputError(f"{video_id} is no video of {out}: `vtm inspect {out} --json` lists them")
    return videos[video_id]
