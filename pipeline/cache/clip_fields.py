"""Which arrays of a clip are read, and the columns of Parquet and members of WebDataset that hold them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pipeline.cache.cached_clip import Arrays, CachedClip
from pipeline.cache.token_values import decoded_tokens
from pipeline.errors import SettingsError

SCALARS = (
    "clip_id",
    "video_id",
    "uri",
    "clip_index",
    "start_ns",
    "end_ns",
    "fidelity",
    "motion_source",
    "damaged_frames",
)
ALWAYS = (*SCALARS, "grid_thw")
"""Small, and always read."""
BYTES = {
    "tokens": ("tokens_bytes", "tokens_shape", "tokens_dtype", "tokens_scale_bytes"),
    "sizes": ("sizes_bytes",),
    "centers": ("centers_bytes",),
    "group": ("group_bytes", "group_dtype"),
    "parent": ("parent_bytes", "group_dtype"),
    "loss": ("loss_bytes",),
    "weights": ("weights_bytes",),
}
LISTS = ("frame_time_ns", "pooled", "embedding")
FIELDS = (*BYTES, *LISTS)
"""Arrays of a `CachedClip` that can be chosen."""
MAPS = ("group", "parent")
"""Stored in as few bytes as their numbers need, and given as int64."""
TRAINING = ("tokens", "sizes", "centers", "frame_time_ns")
"""What training reads: neither the map of patches nor the tree."""


def check_fields(names: Iterable[str]) -> tuple[str, ...]:
    """The arrays to read.

    Raises:
        SettingsError: one is unknown.
    """
    wanted = tuple(names)
    for name in wanted:
        if name not in FIELDS:
            raise SettingsError(f"columns: {name!r} is no array of a clip: choose from {', '.join(FIELDS)}")
    return wanted


def parquet_columns(names: Collection[str]) -> list[str]:
    """Columns that hold these arrays."""
    columns = [*ALWAYS, *(name for name in LISTS if name in names)]
    return [*columns, *dict.fromkeys(column for name in names for column in BYTES.get(name, ()))]


def webdataset_members(names: Collection[str]) -> frozenset[str]:
    """Members of a sample that hold these arrays."""
    arrays = {f"{name}.npy" for name in names if name in BYTES}
    return frozenset({"json"} | arrays | ({"tokens.safetensors"} if "tokens" in names else set()))


def pruned(clip: CachedClip, names: Collection[str]) -> CachedClip:
    """The clip with None in place of the arrays that were not chosen."""
    unread: dict[str, Any] = {name: None for name in FIELDS if name not in names}
    return replace(clip, **unread)


def clip_of_arrays(scalars: dict[str, Any], arrays: dict[str, Any], kind: Arrays, tubelet_frames: int) -> CachedClip:
    """A clip of the arrays that were read, as they are stored.

    Args:
        scalars: `ALWAYS`, and `tokens_dtype` where there are tokens.
        arrays: by the names of `TokenSet`: numpy arrays, or torch tensors of the same bytes.
        kind: what they become.
        tubelet_frames: frames of one step of the grid.
    """
    values: dict[str, Any] = dict.fromkeys(FIELDS)
    for name, array in arrays.items():
        if array is not None and name != "tokens_scale":
            values[name] = as_given(name, array, scalars.get("tokens_dtype"), arrays.get("tokens_scale"), kind)
    for name in SCALARS:
        values[name] = scalars[name]
    return CachedClip(grid_thw=tuple(scalars["grid_thw"]), tubelet_frames=tubelet_frames, **values)


def as_given(name: str, array: Any, tokens_dtype: Any, scale: Any | None, kind: Arrays) -> Any:
    """An array as a clip has it.

    Args:
        name: the clip's attribute.
        array: as it is stored, in numpy or torch.
        tokens_dtype: of the clip's tokens; looked at where the array is these.
        scale: of these, where they are int8 or int4.
        kind: what it becomes.
    """
    if name == "tokens":
        return numbers(array, tokens_dtype, scale, kind)
    if name in MAPS:
        return array.astype(np.int64) if kind == "numpy" else as_kind(array, kind).long()
    return as_kind(array, kind)


def as_kind(array: Any, kind: Arrays) -> Any:
    """An array as torch tensor, or numpy array."""
    if array is None or kind == "numpy" or isinstance(array, torch.Tensor):
        return array
    # Copied where it may not be written to, because torch has no read-only tensors.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def numbers(tokens: Any, dtype: str, scale: Any | None, kind: Arrays) -> Any:
    """(M, D) tokens as numbers to compute with: int8 and int4 in float32; bfloat16 in torch's, for numpy in float32."""
    if dtype == "int4":
        return as_kind(decoded_tokens(np.asarray(tokens), dtype, np.asarray(scale)), kind)
    if kind == "numpy":
        return decoded_tokens(tokens, dtype, scale) if dtype in ("bfloat16", "int8") else tokens
    tokens = as_kind(tokens, kind)
    if dtype == "bfloat16":
        return tokens.view(torch.bfloat16)
    return tokens.float() * as_kind(scale, kind)[:, None] if dtype == "int8" else tokens
