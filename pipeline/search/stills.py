"""Single frames of a run's videos at any size, uncropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.plan.index_file import read_index
from pipeline.shards.run_folder import picture_of
from pipeline.store import Where
from pipeline.values import ClipSpec, PictureSpec
from pipeline.video import open_video, timing_of
from pipeline.video_info import VideoInfo

STILL_HEIGHT_PX = 180
NS_PER_S = 1_000_000_000


def still(out: Where, run: dict[str, Any], video_id: str, uri: str, time_ns: int) -> NDArray[np.uint8] | None:
    """The frame on display at a time of a video, (H, W, 3) uint8 RGB, small; None where the video cannot be read."""
    try:
        info = read_index(out, video_id, uri)
        shown = max(0, int(np.searchsorted(times_ns(info), time_ns, side="right")) - 1)
        width_px = max(1, round(STILL_HEIGHT_PX * info.width_px / max(1, info.height_px)))
        spec = whole_pictures(run, STILL_HEIGHT_PX, width_px)
        frames_1HW3 = frames_at(info, [int(info.frame_pts[shown])], spec)
    except DecodeError:
        return None
    picture: NDArray[np.uint8] = frames_1HW3[0]
    return picture


def whole_pictures(run: dict[str, Any], height_px: int, width_px: int) -> PictureSpec:
    """Pictures of this size that nothing is cropped of, with the run's choices for fields and dynamic range."""
    return replace(
        picture_of(run),
        resize_mode="exact",
        resize_height_px=height_px,
        resize_width_px=width_px,
        crop_height_px=height_px,
        crop_width_px=width_px,
        interpolation="bilinear",
        resizer="torch",
    )


def times_ns(info: VideoInfo) -> NDArray[np.int64]:
    """Time of each frame, 0 the first's, in nanoseconds rounded down."""
    step_ns = info.time_base * NS_PER_S
    ticks = (info.frame_pts - info.start_pts).astype(object)
    times: NDArray[np.int64] = (ticks * step_ns.numerator // step_ns.denominator).astype(np.int64)
    return times


def frames_at(info: VideoInfo, ticks: Sequence[int], spec: PictureSpec) -> NDArray[np.uint8]:
    """(T, height, width, 3) uint8 RGB: the frames at these increasing ticks, one or more.

    Raises:
        DecodeError: they cannot be decoded.
    """
    clip = ClipSpec(
        video_id=info.source.video_id,
        index=0,
        start_ns=0,
        end_ns=1,
        frame_pts=tuple(ticks),
        frame_instants=(1,) * len(ticks),
    )
    with open_video(timing_of(info)) as video:
        return next(iter(video.decode([clip], spec))).frames
