"""Consecutive clips of one video as one sequence of tokens with true times and rows, as a video-LLM's prompt has them.

For training `pipeline.cache.collate.joined` puts the clips that there are end to end, in patch units.

Letters: M tokens of all clips, D channels, F frames of a clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.cache.cached_clip import CachedClip
from pipeline.consumers.readers import Row
from pipeline.counted import counted
from pipeline.errors import SettingsError

Wanted = Literal["cached", "unmerged", "spread"]
"""`cached`: the tokens as they are. `unmerged`: the same, and an error where one represents several. `spread`: each
place of the grid has the token that represents it."""


@dataclass(frozen=True, slots=True, eq=False)
class VideoSequence:
    """The tokens of several clips, one after another."""

    tokens_MD: Tensor
    sizes_M: Tensor
    """int64."""
    centers_M3: Tensor
    """float32: t, y, x within the clip, in units of the grid."""
    rows_M: Tensor
    """float64: the time of each token's centre in rows after the first clip's start; a gap between clips counts. For
    models whose rows are of even length, Qwen's; others have one row a frame, and count their positions."""
    seconds_M: Tensor
    """float64: likewise in seconds of the sampling grid."""
    row_of_M: Tensor
    """int64: index into `rows` of the row that is nearest to the token's centre, the later one of two."""
    rows: tuple[Row, ...]
    """Every row of every clip."""
    grid_hw: tuple[int, int]


def video_sequence(clips: Sequence[CachedClip], run: Mapping[str, Any], wanted: Wanted = "cached") -> VideoSequence:
    """Join clips.

    Args:
        clips: of one video, in order of time; between two of them others may be missing.
        run: what `TokenCache.run` says.
        wanted: which tokens.

    Raises:
        SettingsError: there is no clip, they are of several videos, out of order, or of several sizes; or unmerged
            tokens are wanted and there are none.
    """
    _check(clips, run, wanted)
    fps, clip_frames = Fraction(run["settings"]["fps"]), int(run["settings"]["clip_frames"])
    tubelet_frames = clips[0].tubelet_frames
    first = clips[0].clip_index * clip_frames
    parts: dict[str, list[Tensor]] = {name: [] for name in ("tokens", "sizes", "centers", "instants", "row_of")}
    rows: list[Row] = []
    for clip in clips:
        tokens_MD, sizes_M, centers_M3 = _tokens_of(clip, wanted)
        begin, times_s = clip.clip_index * clip_frames - first, as_tensor(clip.frame_time_ns).double() / 1e9
        nearest_M = (centers_M3[:, 0].double() + 0.5).floor().long().clamp(0, clip.grid_thw[0] - 1)
        parts["tokens"].append(tokens_MD)
        parts["sizes"].append(sizes_M)
        parts["centers"].append(centers_M3)
        parts["instants"].append(begin + centers_M3[:, 0].double() * tubelet_frames)
        parts["row_of"].append(nearest_M + len(rows))
        for number in range(clip.grid_thw[0]):
            shown_s = times_s[number * tubelet_frames : (number + 1) * tubelet_frames]
            rows.append(Row(number=len(rows), time_s=float(shown_s[0] + shown_s[-1]) / 2))
    instants_M = torch.cat(parts["instants"])
    return VideoSequence(
        tokens_MD=torch.cat(parts["tokens"]),
        sizes_M=torch.cat(parts["sizes"]),
        centers_M3=torch.cat(parts["centers"]),
        rows_M=instants_M / tubelet_frames,
        seconds_M=instants_M / float(fps),
        row_of_M=torch.cat(parts["row_of"]),
        rows=tuple(rows),
        grid_hw=clips[0].grid_thw[1:],
    )


def as_tensor(values: Any) -> Tensor:
    """A tensor, of a cache of tensors or of arrays; these are views of a file's bytes, which torch would warn of."""
    return values if isinstance(values, Tensor) else torch.from_numpy(values.copy())


def _tokens_of(clip: CachedClip, wanted: Wanted) -> tuple[Tensor, Tensor, Tensor]:
    tokens_MD, sizes_M = as_tensor(clip.tokens), as_tensor(clip.sizes).long()
    if wanted != "spread":
        return tokens_MD, sizes_M, as_tensor(clip.centers)
    group_N = as_tensor(clip.group)
    places = torch.cartesian_prod(*(torch.arange(side) for side in clip.grid_thw)).float()
    return tokens_MD[group_N], torch.ones_like(group_N), places


def _check(clips: Sequence[CachedClip], run: Mapping[str, Any], wanted: Wanted) -> None:
    if not clips:
        raise SettingsError("no clip was given: expected one or more clips of a video")
    for before, clip in pairwise(clips):
        if clip.video_id != before.video_id:
            raise SettingsError(
                f"clips {before.clip_id} and {clip.clip_id} are of two videos: give the clips of one video at a time"
            )
        if clip.clip_index <= before.clip_index:
            raise SettingsError(f"clip {clip.clip_id} comes after {before.clip_id}: give the clips in order of time")
        if clip.grid_thw[1:] != before.grid_thw[1:]:
            raise SettingsError(
                f"clips {before.clip_id} and {clip.clip_id} have grids of {before.grid_thw[1:]} and {clip.grid_thw[1:]}"
            )
    if wanted == "unmerged":
        merged = next((clip for clip in clips if len(clip.tokens) < len(clip.group)), None)
        if merged is not None:
            raise SettingsError(
                f"clip {merged.clip_id} holds {counted(len(merged.tokens), 'merged token')} for {len(merged.group)} "
                f"places (strategy {run['settings']['strategy']}): unmerged ones need an extraction with "
                "--strategy none; or ask for wanted='spread'"
            )
