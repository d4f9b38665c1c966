"""What a clip is on its way from the plan to the shard, and what its pictures are made to: frozen, numpy only.

Letters: T frames of a clip, H x W its patch grid, N = T*H*W source patches, M merged tokens, D channels.
Time is integer ticks of a `Fraction` time base; nanoseconds and seconds appear only in what is written for people.
Intervals are half open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["bicubic", "bilinear"]
Resizer = Literal["torch", "pillow"]
"""`torch`: what the torchvision processors of transformers compute. `pillow`: what its Pillow processors compute."""
MotionSource = Literal["codec", "frames", "tokens", "none"]
FrameChoice = Literal["exact", "key"]
"""`exact`: the frame on display at each sampling time. `key`: the key frame nearest to it, which costs far less."""
DecoderName = Literal["libav", "nvdec"]
"""`libav`: libavcodec on the CPU. `nvdec`: NVIDIA GPUs decode, convert and resize."""


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
    decoder: DecoderName = "libav"
    """What makes the pictures: libavcodec and swscale, or NVDEC and torch, whose RGB differs by some levels."""
    smart: SmartSize | None = None
    """Where a size of its own is found for each video; the sizes above are then those of a frame of 720 x 1280."""
    patch_px: int = 16
    """Side of an encoder patch: the grid of a frame is (crop_height_px // patch_px, crop_width_px // patch_px)."""

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patches of one frame, rows and columns."""
        return self.crop_height_px // self.patch_px, self.crop_width_px // self.patch_px


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
