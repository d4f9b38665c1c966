"""A plain full decode to compare with: every frame, in order, nothing left out, nothing sought."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.inputs.named import VideoSource
from pipeline.plan.clips import plan_clips
from pipeline.values import ClipSpec, DecodedClip, PictureSpec
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video.picture import shown_size, to_upright_rgb
from pipeline.video.resize import resize_picture
from pipeline.video_info import VideoInfo

SMALL = PictureSpec(
    resize_mode="exact",
    resize_height_px=30,
    resize_width_px=42,
    crop_height_px=30,
    crop_width_px=42,
    interpolation="bilinear",
    patch_px=6,
)


def source_of(path: Path | str) -> VideoSource:
    return VideoSource(video_id="0" * 32, uri=str(path), size_bytes=1)


def in_units(clips: Sequence[ClipSpec], unit_clips: int) -> list[Sequence[ClipSpec]]:
    """Consecutive clips in groups; the last may be shorter."""
    return [clips[first : first + unit_clips] for first in range(0, len(clips), unit_clips)]


def full_decode(
    info: VideoInfo, spec: PictureSpec = SMALL, *, wanted: Container[int] | None = None
) -> dict[int, NDArray[np.uint8]]:
    """Pictures of all frames by tick, or by number where ticks are unusable; packets that fail are stepped over.

    Args:
        info: what was scanned; only its stream and its picture policy are used.
        spec: the size.
        wanted: ticks whose pictures are made; all others are decoded and get an empty one. None: all.
    """
    pictures: dict[int, NDArray[np.uint8]] = {}
    nothing = np.empty(0, dtype=np.uint8)
    reformatter = VideoReformatter()
    with av.open(info.source.uri) as container:
        stream = container.streams[info.stream_index]
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in frames:
                tick = len(pictures) if info.timestamps == "ordinal" else frame.pts
                if wanted is not None and tick not in wanted:
                    pictures[tick] = nothing
                    continue
                rgb = to_upright_rgb(frame, info.picture, reformatter)
                pictures[tick] = resize_picture(rgb, shown_size(frame, info.picture), spec)
    return pictures


def decode_units(
    info: VideoInfo, fps: Fraction, *, clip_frames: int, unit_clips: int, spec: PictureSpec = SMALL
) -> list[DecodedClip]:
    """All clips, each unit through a video opened for it alone, the last unit first."""
    units = in_units(plan_clips(info, fps=fps, clip_frames=clip_frames), unit_clips)
    clips: list[DecodedClip] = []
    for unit in reversed(units):
        with open_video(timing_of(info)) as video:
            clips = [*video.decode(unit, spec), *clips]
    return clips


def expect_equal(
    info: VideoInfo, clips: Sequence[DecodedClip], full: dict[int, NDArray[np.uint8]], fps: Fraction
) -> int:
    """Each grid instant shows what the full decode shows then; returns the number of instants compared."""
    ticks = sorted(full)
    shown = [
        (tick, picture)
        for clip in clips
        for tick, picture, count in zip(clip.spec.frame_pts, clip.frames, clip.spec.frame_instants, strict=True)
        for _ in range(count)
    ]
    number = 0
    while (instant := ticks[0] + number / fps / info.time_base) <= ticks[-1]:
        tick = ticks[bisect_right(ticks, instant) - 1]
        assert shown[number][0] == tick, f"instant {number}: frame {shown[number][0]}, not {tick}"
        np.testing.assert_array_equal(shown[number][1], full[tick], err_msg=f"instant {number}")
        number += 1
    assert len(shown) == number
    assert all(clip.damaged_frames == 0 for clip in clips)
    return number


def compare(path: Path | str, fps: Fraction, *, clip_frames: int, unit_clips: int) -> VideoInfo:
    """Scan, decode in units, and compare with a full decode."""
    info = scan_video(source_of(path))
    clips = decode_units(info, fps, clip_frames=clip_frames, unit_clips=unit_clips)
    assert expect_equal(info, clips, full_decode(info, wanted=ticks_of(clips)), fps) > 0
    return info


def ticks_of(clips: Sequence[DecodedClip]) -> set[int]:
    """Those of the frames that clips show."""
    return {tick for clip in clips for tick in clip.spec.frame_pts}
