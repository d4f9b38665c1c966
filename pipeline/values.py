"""The values that flow through the pipeline: frozen, numpy only, no behaviour beyond derived fields.

Letters: T frames of a clip, H x W its patch grid, N = T*H*W source patches, M merged tokens, D channels.
Time is integer ticks of a `Fraction` time base; nanoseconds and seconds appear only in what is written for people.
Intervals are half open.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import FailureClass
from pipeline.plan.units import Unit

Interpolation = Literal["bicubic", "bilinear"]
Resizer = Literal["torch", "pillow"]
"""`torch`: what the torchvision processors of transformers compute. `pillow`: what its Pillow processors compute."""
MotionSource = Literal["codec", "frames", "tokens", "none"]
TimestampSource = Literal["stream", "ordinal"]
ColourMatrix = Literal["rgb", "bt601", "bt709", "fcc", "smpte240m", "ycgco", "bt2020"]
Transfer = Literal["sdr", "hlg", "pq"]
FrameChoice = Literal["exact", "key"]
"""`exact`: the frame on display at each sampling time. `key`: the key frame nearest to it, which costs far less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One file or object that the user named, before anything of it was read."""

    uri: str
    """A local path, or an address that fsspec opens."""
    size_bytes: int = -1
    """-1 where nobody says."""
    stamp: str = ""
    """Changes when the content does: the time of the last change of a file, the etag of an object. Empty: unknown."""

    @property
    def unread_id(self) -> str:
        """An id for an input whose content, and so whose own id, cannot be known: a hash of its address."""
        return hashlib.sha256(b"unread\0" + self.uri.encode(errors="surrogateescape")).hexdigest()[:32]

    def unread_source(self) -> VideoSource:
        """The source of an input whose content cannot be known."""
        return VideoSource(video_id=self.unread_id, uri=self.uri, size_bytes=-1, stamp=self.stamp)


@dataclass(frozen=True, slots=True)
class Named:
    """An input, and by what it was named."""

    named: str
    """What the user wrote: a folder, a glob, a list."""
    input: Input
    labels: str = ""
    """What a list says of it beside the address, as a JSON object; empty: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSource:
    """One input file or object."""

    video_id: str
    """32 hex digits derived from the content (size, first and last MiB), never from the path; of a part of a video
    followed by start and end, see `pipeline.plan.spans`."""
    uri: str
    """A local path, or an address that fsspec opens; of a part of a video with start and end."""
    size_bytes: int
    stamp: str = ""
    """Of the input when it was read; see `Input`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmartSize:
    """Limits of a size that follows each video's shape: the smart resize of Qwen-VL."""

    factor_px: int
    """Both sides are multiples of it."""
    min_pixels: int
    """Least area of a frame."""
    max_pixels: int
    """Greatest area of a frame."""


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
    tonemap: bool = False
    """Whether HLG and PQ become the standard dynamic range; else their coded values are shown as they are."""
    deinterlace: bool = False
    """Whether one field of an interlaced picture is shown; else both stay woven."""
    alpha_background: tuple[int, int, int] | None = None
    """The colour (red, green, blue) under transparent pictures; None leaves transparency out."""
    smart: SmartSize | None = None
    """Where a size of its own is found for each video; the sizes above are then those of a frame of 720 x 1280."""
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
    missing_pts: tuple[int, ...] = ()
    """Ticks, among `frame_pts`, at which a picture is due whose packet the file lacks."""
    missing_step: int = 0
    """Ticks from packet to packet where pictures are missing; 0 where the codec's own numbers tell which."""
    skip_nonreference: bool = True
    """Whether packets whose headers say that no other picture needs them may be left out."""
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
    missing_pts: tuple[int, ...] = ()
    missing_step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedClip:
    """The frames of one clip at the encoder's size."""

    spec: ClipSpec
    frames: NDArray[np.uint8]
    """(T, crop_height_px, crop_width_px, 3) RGB."""
    frame_time_ns: NDArray[np.int64]
    """(T,) true times of the frames, 0 = first frame of the video."""
    damaged_frames: int
    """Frames that are damaged, predicted from damaged ones, or in place of one that would not decode."""
    is_damaged: NDArray[np.bool_] | None = None
    """(T,) which of them."""
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
    """(M, D) in tokens_dtype, ordered by centre time, then y, then x; bfloat16 as uint16 bits, int4 a number a byte."""
    tokens_dtype: Literal["float16", "bfloat16", "float32", "int8", "int4"]
    tokens_scale: NDArray[np.floating[Any]] | None
    """(M,) float32 for int8: token = int8 * scale; (M, G, 2) float16 for int4, see `pipeline.shards.four_bits`."""
    sizes: NDArray[np.int32]
    """(M,) source patches per token; sums to N."""
    centers: NDArray[np.float32]
    """(M, 3) size-weighted mean t, y, x in patch units."""
    group: NDArray[np.unsignedinteger]
    """(N,) uint16 or uint32: the token that represents each source patch, in t, y, x order."""
    pooled: NDArray[np.float32]
    """(D,) size-weighted mean of the tokens, unit norm."""
    fidelity: float
    """Mean cosine between each source token and the merged token that represents it."""
    motion_source: MotionSource
    damaged_frames: int
    embedding: NDArray[np.float32] | None = None
    """(E,) mean of the frames' image embeddings, unit norm; None where the run stores none."""
    parent: NDArray[np.unsignedinteger] | None = None
    """(M,) in the dtype of `group`: the token into which each merges next, a root its own; None without a tree."""
    loss: NDArray[np.float32] | None = None
    """(M,) what that merge costs in summed cosine: all different, growing along the parents, infinite for the root."""
    weights: NDArray[np.float32] | None = None
    """(M,) summed weights of each token's patches, N over all; None where every patch weighs 1."""
    batch_frames: int = 0
    """Frames that the encoder took at once: fewer than the setting where a GPU had no memory for more. On a GPU,
    another number may round differently."""
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
    stage: str = ""
    """What it was lost in: scan, decode or encode."""
    node: str = ""
    """Where the last attempt ran."""


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
    start_ns: int = 0
    """Start of the first clip: above 0 where a part of a video is meant."""
    end_ns: int = 0
    """End of the grid: the last clip's end."""
    first_instant: int = 0
    """Of the sampling times of the video, the first that lies in the part that is meant."""
    is_sequential: bool = False
    """Whether most clips can only be reached by decoding what comes before them: one worker then decodes them all."""
    failures: tuple[FailedRange, ...] = ()
    """What the scan already knows to be lost: the whole video, or a tail that the file promises and lacks."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardManifest:
    """Published last: a shard exists when its manifest, the record of its commit, does."""

    shard_id: str
    fingerprint: str
    num_clips: int
    files: tuple[ShardFile, ...]
    failures: tuple[FailedRange, ...]
    damaged_frames: dict[str, int]
    """Damaged frames by video, of those that have any."""
    clips: tuple[Unit, ...] = ()
    """The rows of its files, in order: runs of consecutive clips."""
    committed_s: float = 0.0
    """When, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFile:
    """One file of a shard."""

    name: str
    """In the run folder: `shards/<id>.parquet` or `webdataset/<id>.tar`."""
    size_bytes: int
    sha256: str
