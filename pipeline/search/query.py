"""What is looked for, as vectors: made of pictures, of clips, or of a span of a video.

Letters: Q query tokens, M tokens of a clip, F frames, P patches of a frame, N = T*P patches of a clip, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.cache.token_values import decoded_tokens
from pipeline.values import TokenSet
from vtm import merge_tree
from vtm.growing import base_for

PICTURE_KEEP = 0.1
"""Share of a picture's patches that its query tokens are merged to: pictures whose tokens are about as coarse as those
of the clips are compared best (`vtm bench search`)."""
LEAST_TOKENS = 32
"""No picture and no clip is cut to fewer."""
MOST_FRAMES = 8
"""Frames of a query that moments are looked up by, spread over it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """One thing to look for, or several examples of it."""

    pooled_D: Tensor
    """float32, unit norm: what the column `pooled` is compared with."""
    tokens_QD: Tensor
    """float32, unit norm each."""
    weights_Q: Tensor
    """float32, sums to 1: the share of the query that each token represents."""
    frames_FPD: Tensor
    """float32, unit norm: the patches of at most MOST_FRAMES frames, in y, x order."""
    left_out: frozenset[int] = frozenset()
    """Positions of clips that the query itself was taken from."""


def query_of_pictures(pictures: Sequence[TokenSet]) -> Query:
    """Pictures, each encoded as a clip of one frame; several are several examples of one thing."""
    parts = [_merged_picture(directions(picture), picture.grid_thw) for picture in pictures]
    return _query(
        pooled=[torch.from_numpy(picture.pooled) for picture in pictures],
        parts=parts,
        frames=[_frames(picture, 0, picture.grid_thw[0]) for picture in pictures],
    )


@dataclass(frozen=True, slots=True, eq=False)
class ClipSpan:
    """Some consecutive frames of a stored clip."""

    clip: TokenSet
    """As it is stored."""
    cut: TokenSet
    """With as many tokens as are compared."""
    first: int
    last: int
    """Steps of the grid in time, from `first` to before `last`."""


def query_of_spans(spans: Sequence[ClipSpan], left_out: frozenset[int]) -> Query:
    """Clips of the run, or parts of them."""
    pooled, parts, frames = [], [], []
    for span in spans:
        directions_MD = directions(span.cut)
        group_TP = span.cut.group.reshape(span.cut.grid_thw[0], -1)[span.first : span.last]
        counts_M = torch.from_numpy(np.bincount(group_TP.ravel(), minlength=len(directions_MD)).astype(np.float32))
        there = counts_M > 0
        parts.append((directions_MD[there], counts_M[there]))
        pooled.append(_pooled_of(span))
        frames.append(_frames(span.clip, span.first, span.last))
    return _query(pooled=pooled, parts=parts, frames=frames, left_out=left_out)


def _query(
    *,
    pooled: Sequence[Tensor],
    parts: Sequence[tuple[Tensor, Tensor]],
    frames: Sequence[Tensor],
    left_out: frozenset[int] = frozenset(),
) -> Query:
    # Of examples of one thing, each counts as much as any other, however many patches it has.
    shares = [counts_M / counts_M.sum() / len(parts) for _, counts_M in parts]
    frames_FPD = torch.cat(list(frames))
    shown = torch.linspace(0, len(frames_FPD) - 1, min(MOST_FRAMES, len(frames_FPD))).round().long()
    return Query(
        pooled_D=normalize(torch.stack(list(pooled)).mean(dim=0), dim=0),
        tokens_QD=torch.cat([tokens_MD for tokens_MD, _ in parts]),
        weights_Q=torch.cat(shares),
        frames_FPD=frames_FPD[shown],
        left_out=left_out,
    )


def directions(clip: TokenSet) -> Tensor:
    """(M, D) float32, unit norm."""
    return normalize(torch.from_numpy(decoded_tokens(clip.tokens, clip.tokens_dtype, clip.tokens_scale)), dim=1)


def _frames(clip: TokenSet, first: int, last: int) -> Tensor:
    """(F, P, D) at most MOST_FRAMES of the frames: the directions of the tokens that represent their patches."""
    rows = np.unique(np.linspace(first, last - 1, min(MOST_FRAMES, last - first)).round().astype(int))
    group_FP = clip.group.astype(np.int64).reshape(clip.grid_thw[0], -1)[rows]
    return directions(clip)[torch.from_numpy(group_FP)]


def _merged_picture(directions_MD: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Tokens and how many patches each represents."""
    if len(directions_MD) != grid[0] * grid[1] * grid[2]:
        # The encoder, or a trained network, has merged it already.
        return directions_MD, torch.ones(len(directions_MD))
    left = min(len(directions_MD), max(math.ceil(PICTURE_KEEP * len(directions_MD)), LEAST_TOKENS))
    tree = merge_tree(directions_MD[None], grid=grid, base=base_for(left / len(directions_MD)))
    plan = tree.plan(num_tokens=left)
    return normalize(plan.mean(directions_MD[None])[0], dim=1), plan.sizes[0].float()


def _pooled_of(span: ClipSpan) -> Tensor:
    """The mean over the span's patches, which of a whole clip is its column `pooled`."""
    clip = span.clip
    if (span.first, span.last) == (0, clip.grid_thw[0]):
        return torch.from_numpy(clip.pooled.copy())
    group_TP = clip.group.reshape(clip.grid_thw[0], -1)[span.first : span.last]
    counts_M = np.bincount(group_TP.ravel(), minlength=len(clip.tokens)).astype(np.float32)
    values_MD = decoded_tokens(clip.tokens, clip.tokens_dtype, clip.tokens_scale)
    return normalize(torch.from_numpy(counts_M @ values_MD), dim=0)
