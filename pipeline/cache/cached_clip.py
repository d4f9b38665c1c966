"""What reading gives: one clip, or one whole video, as torch tensors or numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.cache.token_values import decoded_tokens
from pipeline.cache.video_tokens import VideoTokens
from pipeline.counted import counted
from pipeline.values import TokenSet

Arrays = Literal["torch", "numpy"]
Array: TypeAlias = Any
"""A torch tensor or a numpy array, as the cache was opened."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CachedClip:
    """One clip read back. M tokens of D channels represent N source patches. What was not chosen to be read is None."""

    clip_id: str
    video_id: str
    uri: str
    clip_index: int
    start_ns: int
    end_ns: int
    frame_time_ns: Array
    """(F,) int64, of the sampled frames: F = T, but of a video model's tubelets, where T = ceil(F / tubelet)."""
    grid_thw: tuple[int, int, int]
    tokens: Array
    """(M, D): float16, float32, or bfloat16 (float32 in numpy, which has no bfloat16); int8 and
    int4 come back as float32."""
    sizes: Array
    """(M,) int32, sums to N."""
    centers: Array
    """(M, 3) float32: t, y, x in patch units."""
    group: Array
    """(N,) int64: the token of each source patch, in t, y, x order."""
    pooled: Array
    """(D,) float32, unit norm."""
    fidelity: float
    motion_source: str
    damaged_frames: int
    embedding: Array | None = None
    """(E,) float32, unit norm: the mean of the frames' image embeddings, where the encoder has them."""
    parent: Array | None = None
    """(M,) int64: the token into which each merges next, the root's its own; None without a merge tree."""
    loss: Array | None = None
    """(M,) float32: what that merge costs in summed cosine, infinite for the root."""
    weights: Array | None = None
    """(M,) float32: summed weights of each token's patches; None where every patch weighs 1."""
    tubelet_frames: int = 1
    """Frames of a tubelet, which is one step of the grid in time; the last one may hold fewer."""

    @property
    def row_time_ns(self) -> Array:
        """(T,) int64: the time of the first frame of each step of the grid."""
        return self.frame_time_ns[:: self.tubelet_frames]

    @property
    def time_ns(self) -> Array:
        """(M,) int64: the time in the video of each token's centre."""
        times_M = token_times(np.asarray(self.centers), np.asarray(self.row_time_ns))
        return torch.from_numpy(times_M) if isinstance(self.centers, torch.Tensor) else times_M

    def __repr__(self) -> str:
        frames, rows, columns = self.grid_thw
        held = ""
        if self.tokens is not None:
            held = f"{counted(len(self.tokens), 'token')} of {self.tokens.shape[1]} channels, "
        return (
            f"CachedClip({self.clip_id!r}, {self.start_ns / 1e9:g} to {self.end_ns / 1e9:g} s, {held}"
            f"{frames} x {rows} x {columns} patches)"
        )

    def unmerged(self) -> Array:
        """Each source patch's token, (N, D)."""
        return self.tokens[self.group]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CachedVideo:
    """A whole video's V tokens of D channels, merged across its clips."""

    video_id: str
    uri: str
    num_sources: int
    """Source patches of all clips."""
    tokens: Array
    """(V, D), as `CachedClip.tokens`, in order of time."""
    sizes: Array
    """(V,) int64, sums to num_sources."""
    centers: Array
    """(V, 3) float32: t, y, x in patch units, t counted on over the video's clips."""
    time_ns: Array
    """(V,) int64: mean time in the video."""
    parent: Array
    """(V,) int64: the token into which each merges next."""
    loss: Array
    """(V,) float32: what that costs."""
    fidelity: float
    """Mean cosine between source tokens and these, as told."""
    clip_maps: dict[str, Array]
    """By clip id: (M,) int64, the video's token of each token stored for the clip, whatever the cache's own cut is."""


def token_times(centers_M3: NDArray[np.float32], row_time_T: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M,) int64: the times of centres, between the times of the steps of the grid around them."""
    times = np.interp(centers_M3[:, 0], np.arange(len(row_time_T)), row_time_T.astype(np.float64))
    return times.round().astype(np.int64)


def cached_clip(clip: TokenSet, arrays: Arrays, tubelet_frames: int = 1) -> CachedClip:
    """A token set with its arrays in the form a consumer computes with."""
    converted: dict[str, Any] = {
        "tokens": _tokens(clip.tokens, clip.tokens_dtype, clip.tokens_scale, arrays),
        "group": clip.group.astype(np.int64),
        "parent": None if clip.parent is None else clip.parent.astype(np.int64),
        "loss": clip.loss,
        "weights": clip.weights,
        "sizes": clip.sizes,
        "centers": clip.centers,
        "pooled": clip.pooled,
        "embedding": clip.embedding,
        "frame_time_ns": clip.frame_time_ns,
    }
    converted = _converted(converted, arrays)
    converted["tubelet_frames"] = tubelet_frames
    same = {f.name: getattr(clip, f.name) for f in fields(CachedClip) if f.name not in converted}
    return CachedClip(**same, **converted)


def cached_video(video: VideoTokens, arrays: Arrays) -> CachedVideo:
    """A video's tokens with their arrays in the form a consumer computes with."""
    converted = {
        "tokens": _tokens(video.tokens, video.tokens_dtype, video.tokens_scale, arrays),
        "sizes": video.sizes,
        "centers": video.centers,
        "time_ns": video.time_ns,
        "parent": video.parent.astype(np.int64),
        "loss": video.loss,
    }
    ends = np.cumsum(video.clip_tokens)[:-1]
    maps = dict(zip(video.clip_ids, np.split(video.map.astype(np.int64), ends), strict=True))
    same = {name: getattr(video, name) for name in ("video_id", "uri", "num_sources", "fidelity")}
    return CachedVideo(**same, **_converted(converted, arrays), clip_maps=_converted(maps, arrays))


def _converted(values: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    if arrays == "numpy":
        return values
    # Copied, because the bytes of a file may not be written to and torch has no read-only tensors.
    return {k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for k, v in values.items()}


def _tokens(
    tokens_MD: NDArray[np.generic], dtype: str, scale_M: NDArray[np.floating[Any]] | None, arrays: Arrays
) -> Array:
    if dtype == "bfloat16" and arrays == "torch":
        return torch.from_numpy(tokens_MD.copy()).view(torch.bfloat16)
    return decoded_tokens(tokens_MD, dtype, scale_M) if dtype in ("bfloat16", "int8", "int4") else tokens_MD
