"""Clips of different numbers of tokens to one batch: padded with a mask, or packed end to end with `cu_seqlens`.

Letters: B samples, M the most tokens of one, S the tokens of all, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from pipeline.cache.cached_clip import Array, CachedClip
from pipeline.counted import counted
from pipeline.errors import SettingsError

Batch = TypeVar("Batch", "PaddedBatch", "PackedBatch")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class JoinedClips:
    """Clips of one video, one after the other, as one sequence of S tokens."""

    video_id: str
    uri: str
    clip_ids: tuple[str, ...]
    tokens: Array
    """(S, D), in order of clips and of a clip's tokens."""
    sizes: Array
    """(S,) int32: source patches of each token."""
    centers: Array
    """(S, 3) float32: t, y, x in patch units, t counted on over the clips."""
    time_ns: Array
    """(S,) int64: time in the video."""
    clip_tokens: tuple[int, ...]
    """Tokens of each clip; S in all."""
    start_ns: int
    end_ns: int

    def __repr__(self) -> str:
        clips, tokens = counted(len(self.clip_ids), "clip"), counted(len(self.tokens), "token")
        return f"JoinedClips({self.video_id!r}, {clips}, {tokens})"


def joined(clips: Sequence[CachedClip]) -> JoinedClips:
    """The clips of one video as one sequence, with true times.

    Args:
        clips: of one video, in order of time, at least one; with tokens, sizes, centres and times of frames.

    Raises:
        SettingsError: they are of several videos, or not in order.
    """
    if not clips:
        raise SettingsError("there are no clips to join")
    for before, after in pairwise(clips):
        if after.video_id != before.video_id or after.clip_index <= before.clip_index:
            raise SettingsError(f"{after.clip_id} cannot be joined after {before.clip_id}: join one video's, in order")
    _need(clips, ("tokens", "sizes", "centers", "frame_time_ns"))
    first_steps = np.cumsum([0, *(clip.grid_thw[0] for clip in clips)])
    centers = []
    for clip, first_step in zip(clips, first_steps.tolist(), strict=False):
        moved = clip.centers.clone() if isinstance(clip.centers, Tensor) else clip.centers.copy()
        moved[:, 0] += first_step
        centers.append(moved)
    return JoinedClips(
        video_id=clips[0].video_id,
        uri=clips[0].uri,
        clip_ids=tuple(clip.clip_id for clip in clips),
        tokens=_concatenated([clip.tokens for clip in clips]),
        sizes=_concatenated([clip.sizes for clip in clips]),
        centers=_concatenated(centers),
        time_ns=_concatenated([clip.time_ns for clip in clips]),
        clip_tokens=tuple(len(clip.tokens) for clip in clips),
        start_ns=clips[0].start_ns,
        end_ns=clips[-1].end_ns,
    )


def _concatenated(arrays: Sequence[Array]) -> Array:
    return torch.cat(list(arrays)) if isinstance(arrays[0], Tensor) else np.concatenate(arrays)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaddedBatch:
    """B samples of up to M tokens; what is beyond a sample's own tokens is 0."""

    ids: tuple[str, ...]
    """Clip ids, or the video ids of joined clips."""
    tokens: Tensor
    """(B, M, D)"""
    mask: Tensor
    """(B, M) bool: True where there is a token, as `scaled_dot_product_attention` wants it for keys."""
    sizes: Tensor
    """(B, M) int32: source patches of each token."""
    centers: Tensor
    """(B, M, 3) float32: t, y, x in patch units."""
    time_s: Tensor
    """(B, M) float64: time in the video."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> PaddedBatch:
        """The batch on another device."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PaddedBatch:
        """The batch in page-locked memory: what a DataLoader with `pin_memory=True` calls."""
        return _mapped(self, Tensor.pin_memory)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedBatch:
    """B samples end to end, S tokens in all, without padding."""

    ids: tuple[str, ...]
    """Clip ids, or the video ids of joined clips."""
    tokens: Tensor
    """(S, D)"""
    cu_seqlens: Tensor
    """(B + 1,) int32: where each sample begins, and S: what FlashAttention's varlen functions take."""
    max_seqlen: int
    """Tokens of the longest sample."""
    sizes: Tensor
    """(S,) int32: source patches of each token."""
    centers: Tensor
    """(S, 3) float32: t, y, x in patch units."""
    time_s: Tensor
    """(S,) float64: time in the video."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> PackedBatch:
        """The batch on another device."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedBatch:
        """The batch in page-locked memory: what a DataLoader with `pin_memory=True` calls."""
        return _mapped(self, Tensor.pin_memory)


def _mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
    return replace(batch, **changed)


@overload
def collate(samples: Sequence[CachedClip | JoinedClips], *, packed: Literal[False] = False) -> PaddedBatch: ...
@overload
def collate(samples: Sequence[CachedClip | JoinedClips], *, packed: Literal[True]) -> PackedBatch: ...
def collate(samples: Sequence[CachedClip | JoinedClips], *, packed: bool = False) -> PaddedBatch | PackedBatch:
    """One batch of clips, or of joined clips: the `collate_fn` of a DataLoader.

    Args:
        samples: with tokens, sizes, centres and times of frames, as torch tensors or numpy arrays.
        packed: end to end instead of padded: `functools.partial(collate, packed=True)`.

    Raises:
        SettingsError: there are none, they differ in channels or dtype, or lack an array.
    """
    if not samples:
        raise SettingsError("there are no clips to collate")
    _need([sample for sample in samples if isinstance(sample, CachedClip)], ("tokens", "sizes", "centers"))
    tokens = [torch.as_tensor(sample.tokens) for sample in samples]
    kinds = {(tensor.shape[1], tensor.dtype) for tensor in tokens}
    if len(kinds) > 1:
        text = " and ".join(sorted(f"{dim} channels of {dtype}" for dim, dtype in kinds))
        raise SettingsError(f"clips with {text} cannot be in one batch: stream caches of one encoder and dtype")
    parts: dict[str, list[Tensor]] = {
        "tokens": tokens,
        "sizes": [torch.as_tensor(sample.sizes) for sample in samples],
        "centers": [torch.as_tensor(sample.centers) for sample in samples],
        "time_s": [torch.as_tensor(sample.time_ns).double() / 1e9 for sample in samples],
    }
    ids = tuple(sample.clip_id if isinstance(sample, CachedClip) else sample.video_id for sample in samples)
    lengths = [len(tensor) for tensor in tokens]
    if packed:
        ends = torch.tensor([0, *lengths]).cumsum(0).int()
        whole: dict[str, Any] = {name: torch.cat(tensors) for name, tensors in parts.items()}
        return PackedBatch(ids=ids, cu_seqlens=ends, max_seqlen=max(lengths), **whole)
    padded: dict[str, Any] = {name: _padded(tensors, max(lengths)) for name, tensors in parts.items()}
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return PaddedBatch(ids=ids, mask=mask, **padded)


def _padded(tensors: Sequence[Tensor], length: int) -> Tensor:
    """(B, length, ...) with zeros after each tensor's end."""
    batch = tensors[0].new_empty((len(tensors), length, *tensors[0].shape[1:]))
    for row, tensor in zip(batch, tensors, strict=True):
        row[: len(tensor)] = tensor
        row[len(tensor) :] = 0
    return batch


def _need(clips: Sequence[CachedClip], names: Sequence[str]) -> None:
    for clip in clips:
        missing = [name for name in names if getattr(clip, name) is None]
        if missing:
            raise SettingsError(f"clip {clip.clip_id} was read without {', '.join(missing)}: add it to columns=")
