"""What a scan finds of a video, and the part of it that decoding needs: numpy only.

Time is integer ticks of a `Fraction` time base. Intervals are half open.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.inputs.named import VideoSource

TimestampSource = Literal["stream", "ordinal"]
ColourMatrix = Literal["rgb", "bt601", "bt709", "fcc", "smpte240m", "ycgco", "bt2020"]
Transfer = Literal["sdr", "hlg", "pq"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturePolicy:
    """How the decoder's pictures become upright RGB; decided once per video, from its first frame."""

    rotation_deg: int = 0
    """Clockwise turn that shows the picture upright: 0, 90, 180 or 270."""
    mirrored: bool = False
    """Whether the picture is flipped left to right, before it is turned."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel over its height, before the turn."""
    matrix: ColourMatrix = "bt601"
    full_range: bool = False
    transfer: Transfer = "sdr"
    interlaced: bool = False
    """Whether the first frame holds two woven fields; they are kept woven."""
    alpha: bool = False
    """Whether pictures have transparency, which is left out unless a background is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What one pass over a video's packets found, beside what its header says."""

    source: VideoSource
    container: str
    codec: str
    pixel_format: str
    stream_index: int
    width_px: int
    """As shown: after rotation and sample aspect ratio."""
    height_px: int
    rotation_deg: int
    """Clockwise turn that shows the picture upright: 0, 90, 180 or 270."""
    mirrored: bool
    picture: PicturePolicy
    picture_policy: str
    """The decisions on colour matrix, range, interlacing and aspect, in a few words for the record."""
    frame_rate: Fraction | None
    """The header's average rate; never used as time."""
    frames_header: int
    """0 where the header does not say."""
    duration_header_s: float | None
    timestamps: TimestampSource
    """`ordinal`: the stream's pts are unusable: ticks count frames in output order, time_base is 1 / frame_rate."""
    time_base: Fraction
    frames_found: int
    start_pts: int
    """Tick of the first frame in display order: the grid's t_0."""
    last_pts: int
    """Tick of the last frame in display order."""
    key_pts: NDArray[np.int64]
    """Ticks of the key frames, increasing: where decoding may start."""
    frame_pts: NDArray[np.int64]
    """Ticks of all frames in display order, increasing. Used while planning; not kept in the plan."""
    key_waits: tuple[tuple[int, int], ...] = ()
    """Of the few keys whose pictures are whole only later (a refresh bit by bit): their tick, and that from which."""
    key_places: tuple[tuple[int, int], ...] = ()
    """Of some keys, where the container has no index of its own: their tick, and the byte at which they begin."""
    missing_pts: tuple[int, ...] = ()
    """Ticks, among `frame_pts`, at which a picture is due whose packet the file lacks."""
    missing_step: int = 0
    """Ticks from packet to packet where pictures are missing; 0 where the codec's own numbers tell which."""
    skip_nonreference: bool = True
    """Whether packets whose headers say that no other picture needs them may be left out."""
    missing_tail_ns: int = 0
    """Time that the header promises after the last frame found, where the file was cut off; 0 where it was not."""
    has_audio: bool | None = None
    """Whether the file has sound; None in an index from before this was looked at."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTiming:
    """The part of `VideoInfo` that decoding needs."""

    uri: str
    stream_index: int
    timestamps: TimestampSource
    time_base: Fraction
    start_pts: int
    key_pts: NDArray[np.int64]
    picture: PicturePolicy
    skip_nonreference: bool
    shown_hw: tuple[int, int] | None = None
    """Height and width as shown; a smart size follows from it."""
    key_waits: tuple[tuple[int, int], ...] = ()
    key_places: tuple[tuple[int, int], ...] = ()
    missing_pts: tuple[int, ...] = ()
    missing_step: int = 0
