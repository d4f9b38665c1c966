"""The values that flow through the pipeline: frozen, numpy only, no behaviour beyond derived fields.

Letters: T frames of a clip, H x W its patch grid, N = T*H*W source patches, M merged tokens, D channels.
Time is integer ticks of a `Fraction` time base; nanoseconds and seconds appear only in what is written for people.
Intervals are half open.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import FailureClass

Interpolation = Literal["bicubic", "bilinear"]
Resizer = Literal["torch", "pillow"]
"""`torch`: what the torchvision processors of transformers compute. `pillow`: what its Pillow processors compute."""
MotionSource = Literal["codec", "frames", "tokens", "none"]
TimestampSource = Literal["stream", "ordinal"]
ColourMatrix = Literal["rgb", "bt601", "bt709", "fcc", "smpte240m", "ycgco", "bt2020"]
Transfer = Literal["sdr", "hlg", "pq"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """One input file or object."""

    video_id: str
    """32 hex digits derived from the content (size, first and last MiB), never from the path."""
    uri: str
    """A local path, or an address that fsspec opens."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSpec:
    """What the encoder's own preprocessor does to a picture before normalising it."""

    resize_mode: Literal["exact", "shortest_edge"]
    """`exact`: to (resize_height_px, resize_width_px). `shortest_edge`: the shorter side to resize_height_px."""
    resize_height_px: int
    resize_width_px: int
    crop_height_px: int
    """Centre crop after the resize; equal to the resize for an exact one without a crop."""
    crop_width_px: int
    interpolation: Interpolation = "bicubic"
    resizer: Resizer = "torch"
    patch_px: int = 16
    """Side of an encoder patch: the grid of a frame is (crop_height_px // patch_px, crop_width_px // patch_px)."""

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patches of one frame, rows and columns."""
        return self.crop_height_px // self.patch_px, self.crop_width_px // self.patch_px


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
    skip_nonreference: bool = False
    """Whether leaving out non-reference frames is known to change no other frame of this stream."""
    missing_tail_ns: int = 0
    """Time that the header promises after the last frame found, where the file was cut off; 0 where it was not."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """A fixed number of consecutive grid instants of one video, and the frames on display at them."""

    video_id: str
    index: int
    start_ns: int
    """First grid instant, in video time (0 = first frame)."""
    end_ns: int
    """Grid instant after the last one."""
    frame_pts: tuple[int, ...]
    """Ticks of the T frames on display, each once, increasing."""
    frame_instants: tuple[int, ...]
    """How many of the clip's instants each frame covers; sums to the clip's instants."""

    @property
    def clip_id(self) -> str:
        """`video_id-000042`."""
        return f"{self.video_id}-{self.index:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Consecutive clips of one video that one worker decodes in one pass."""

    unit_id: str
    video_id: str
    clips: tuple[ClipSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTiming:
    """The part of `VideoInfo` that decoding a unit needs; small enough to travel with each unit."""

    uri: str
    stream_index: int
    timestamps: TimestampSource
    time_base: Fraction
    start_pts: int
    key_pts: NDArray[np.int64]
    picture: PicturePolicy
    skip_nonreference: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedClip:
    """The frames of one clip at the encoder's size."""

    spec: ClipSpec
    frames: NDArray[np.uint8]
    """(T, crop_height_px, crop_width_px, 3) RGB."""
    frame_time_ns: NDArray[np.int64]
    """(T,) true times of the frames, 0 = first frame of the video."""
    damaged_frames: int
    """Frames that libavcodec marked corrupt, or that stand in for one that would not decode."""
    motion: NDArray[np.float32] | None = None
    """(T, H, W) motion magnitude on the patch grid, where a strategy asks for it."""
    motion_source: MotionSource = "none"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenSet:
    """What a clip becomes; one row of the output."""

    clip_id: str
    video_id: str
    uri: str
    clip_index: int
    start_ns: int
    end_ns: int
    frame_time_ns: NDArray[np.int64]
    grid_thw: tuple[int, int, int]
    tokens: NDArray[np.generic]
    """(M, D) in tokens_dtype, ordered by centre time, then y, then x; bfloat16 as its uint16 bits."""
    tokens_dtype: Literal["float16", "bfloat16", "float32", "int8"]
    tokens_scale: NDArray[np.float32] | None
    """(M,) for int8: token = int8 * scale."""
    sizes: NDArray[np.int32]
    """(M,) source patches per token; sums to N."""
    centers: NDArray[np.float32]
    """(M, 3) size-weighted mean t, y, x in patch units."""
    group: NDArray[np.unsignedinteger]
    """(N,) uint16 or uint32: the token that stands for each source patch, in t, y, x order."""
    pooled: NDArray[np.float32]
    """(D,) size-weighted mean of the tokens, unit norm."""
    fidelity: float
    """Mean cosine between each source token and the merged token that stands for it."""
    motion_source: MotionSource
    damaged_frames: int
    parent: NDArray[np.unsignedinteger] | None = None
    """(M,) in the dtype of `group`: the token into which each merges next, a root its own; None without a tree."""
    loss: NDArray[np.float32] | None = None
    """(M,) what that merge costs in summed cosine: all different, growing along the parents, infinite for the root."""
    weights: NDArray[np.float32] | None = None
    """(M,) summed weights of each token's patches, N over all; None where every patch weighs 1."""
    encoded_patches: int | None = None
    """How many of the N source patches were encoded, where unchanged ones were not. It says what the work was, and is
    not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRange:
    """A part of a video that could not be extracted, and why."""

    video_id: str
    uri: str
    start_ns: int
    end_ns: int
    """Equal to start_ns where nothing is known of the video's length."""
    failure: FailureClass
    message: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedVideo:
    """One video of the plan: what is known of it, and how many clips it has."""

    source: VideoSource
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    width_px: int = 0
    height_px: int = 0
    rotation_deg: int = 0
    mirrored: bool = False
    picture_policy: str = ""
    frames_header: int = 0
    frames_found: int = 0
    duration_header_s: float | None = None
    duration_found_s: float = 0.0
    """From the first frame to the last one's timestamp."""
    num_clips: int = 0
    num_instants: int = 0
    end_ns: int = 0
    """End of the grid: the last clip's end."""
    timing: VideoTiming | None = None
    failures: tuple[FailedRange, ...] = ()
    """What the scan already knows to be lost: the whole video, or a tail that the file promises and lacks."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """The units whose clips go into one output file; its id is a hash of theirs."""

    shard_id: str
    units: tuple[Unit, ...]

    @property
    def num_clips(self) -> int:
        """Clips that the shard holds when nothing fails."""
        return sum(len(unit.clips) for unit in self.units)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardManifest:
    """Published last: a shard exists when its manifest does."""

    shard_id: str
    fingerprint: str
    num_clips: int
    files: tuple[ShardFile, ...]
    failures: tuple[FailedRange, ...]
    damaged_frames: dict[str, int]
    """Damaged frames by video, of those that have any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """One file of a shard."""

    name: str
    size_bytes: int
    sha256: str
