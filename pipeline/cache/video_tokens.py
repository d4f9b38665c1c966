"""A video's clips merged across clips, from their stored tokens: hours in the memory of the tokens wanted.

Letters: J tokens of a clip, V tokens of the video, D channels, S tokens stored over all its clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.cache.cut import Cut, cut_map, stored_fidelities
from pipeline.cache.token_values import decoded_tokens, directions_of, masses, stored_tokens
from pipeline.errors import SettingsError
from pipeline.values import TokenSet
from vtm.agglomeration import agglomerate
from vtm.matching import nearest_directions
from vtm.segments import scattered_sum
from vtm.stream import TreeStream

Clips = Callable[[], Iterator[TokenSet]]
"""The clips of one video in order of time, from the start at every call."""
PLACE_COLUMNS = 6
"""Of `_totals`, beside the channels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoTokens:
    """One video's tokens across its clips; they say of each token stored for a clip which of them represents it."""

    video_id: str
    uri: str
    num_sources: int
    """Source patches of all clips."""
    clip_ids: tuple[str, ...]
    clip_tokens: tuple[int, ...]
    """J of each clip; S in all."""
    map: NDArray[np.unsignedinteger]
    """(S,) uint16 or uint32: the video's token of each clip's tokens, in order of clips and of a clip's row."""
    tokens: NDArray[np.generic]
    """(V, D) in tokens_dtype, ordered by time, then y, then x; bfloat16 as its uint16 bits."""
    tokens_dtype: str
    tokens_scale: NDArray[np.floating[Any]] | None
    """As `TokenSet.tokens_scale`, for int8 and int4."""
    sizes: NDArray[np.int64]
    """(V,) source patches of each; sums to num_sources."""
    weights: NDArray[np.float32]
    """(V,) summed weights of its patches; its size where every patch weighs 1."""
    centers: NDArray[np.float32]
    """(V, 3) size-weighted mean t, y, x in patch units, t counted on over the video's clips."""
    time_ns: NDArray[np.int64]
    """(V,) size-weighted mean time in the video."""
    parent: NDArray[np.unsignedinteger]
    """(V,) in the dtype of `map`: the token into which each merges next, the root its own."""
    loss: NDArray[np.float32]
    """(V,) what that costs in summed cosine; infinite for the root."""
    fidelity: float
    """Mean cosine between source tokens and the video's, as told by the clips' fidelities and the losses."""

    def clip_map(self, clip_id: str) -> NDArray[np.int64]:
        """(J,) the video's token of each token stored for a clip.

        Raises:
            KeyError: the video has no such clip.
        """
        if clip_id not in self.clip_ids:
            raise KeyError(f"{clip_id} is no clip of video {self.video_id}")
        position = self.clip_ids.index(clip_id)
        start = sum(self.clip_tokens[:position])
        return self.map[start : start + self.clip_tokens[position]].astype(np.int64)


def merge_video(clips: Clips, num_tokens: int, lloyd_steps: int = 0, tubelet_frames: int = 1) -> VideoTokens:
    """Merge a video's clips down to a number of tokens.

    Reads the clips twice, and once more for each Lloyd step. Alive are at most 1.5 times the tokens wanted, one clip,
    and the map.

    Args:
        clips: of one video, at least one, with trees.
        num_tokens: V, at most; fewer where less is stored.
        lloyd_steps: means of what is nearest replace the tokens, and attract anew: .01 more fidelity at 1 % and below,
            for tokens that are no cut of the clips' trees.
        tubelet_frames: frames of each step of the grid, for the tokens' times.

    Raises:
        SettingsError: a setting is out of range, a clip holds no tree, or there is no clip.
    """
    if num_tokens < 1 or lloyd_steps < 0:
        raise SettingsError(
            f"tokens of a video are 1 or more and Lloyd steps 0 or more, got {num_tokens} and {lloyd_steps}"
        )
    map_S, sum_VD = _streamed(clips, num_tokens)
    for _ in range(lloyd_steps):
        map_S, sum_VD = _lloyd_step(clips, sum_VD)
    return _gathered(clips, map_S, sum_VD, tubelet_frames)


def _streamed(clips: Clips, num_tokens: int) -> tuple[NDArray[np.int64], Tensor]:
    """The video's token of each stored one, and the tokens' sums of directions."""
    stream = TreeStream(num_tokens)
    alive_of: list[NDArray[np.int64]] = []
    for clip in clips():
        into_J = _sure_merges(clip, stream.sure_loss)
        left = int(into_J.max()) + 1
        felt = torch.cat((directions_of(clip), torch.from_numpy(masses(clip))[:, None]), dim=1)
        felt = scattered_sum(felt, torch.from_numpy(into_J), left)
        alive_of.append(into_J + stream.num_alive)
        alive_of = _moved(alive_of, stream.add(felt[:, :-1], felt[:, -1]))
    if not alive_of:
        raise SettingsError("a video without clips has nothing to merge")
    alive_of = _moved(alive_of, stream.finish())
    return np.concatenate(alive_of), stream.sums


def _sure_merges(clip: TokenSet, max_loss: float) -> NDArray[np.int64]:
    """(J,) the merges of the clip's own tree that the stream would make in any case."""
    if clip.parent is None or clip.loss is None or max_loss <= 0:
        return np.arange(len(clip.tokens))
    return cut_map(clip.parent.astype(np.int64), clip.loss, int(np.count_nonzero(clip.loss > max_loss)))[1]


def _moved(alive_of: list[NDArray[np.int64]], into_K: Tensor | None) -> list[NDArray[np.int64]]:
    if into_K is None:
        return alive_of
    # One array instead of one a clip: as many as there are would be visited at each merge.
    return [into_K.numpy()[np.concatenate(alive_of)]]


def _lloyd_step(clips: Clips, sum_VD: Tensor) -> tuple[NDArray[np.int64], Tensor]:
    """Every stored token joins the nearest mean direction; those that attract nothing go."""
    directions_VD = F.normalize(sum_VD, dim=1)
    total_VD = torch.zeros_like(sum_VD)
    nearest_of = []
    for clip in clips():
        sum_JD = directions_of(clip)
        nearest_1J, _ = nearest_directions(sum_JD[None], directions_VD[None])
        total_VD += scattered_sum(sum_JD, nearest_1J[0], len(total_VD))
        nearest_of.append(nearest_1J[0].numpy())
    map_S = np.concatenate(nearest_of)
    used_V, renamed_S = np.unique(map_S, return_inverse=True)
    return renamed_S, total_VD[torch.from_numpy(used_V)]


def _gathered(clips: Clips, map_S: NDArray[np.int64], sum_VD: Tensor, tubelet_frames: int) -> VideoTokens:
    """What the map makes of the clips."""
    left = len(sum_VD)
    totals = torch.zeros(left, sum_VD.shape[1] + PLACE_COLUMNS, dtype=torch.float64)
    ids: list[str] = []
    counts: list[int] = []
    steps = at = 0
    for clip in clips():
        mine_J = torch.from_numpy(map_S[at : at + len(clip.tokens)])
        totals += scattered_sum(torch.from_numpy(_clip_totals(clip, steps, tubelet_frames)), mine_J, left)
        at, steps = at + len(clip.tokens), steps + clip.grid_thw[0]
        ids.append(clip.clip_id)
        counts.append(len(clip.tokens))
    order_V, means = _means(totals.numpy(), clip.tokens_dtype)
    sum_VD = sum_VD[torch.from_numpy(order_V)]
    parent_V, loss_V = agglomerate(sum_VD, torch.from_numpy(means["weights"]))
    dtype = np.uint16 if left <= 1 << 16 else np.uint32
    num_sources = int(means["sizes"].sum())
    return VideoTokens(
        video_id=clip.video_id,
        uri=clip.uri,
        num_sources=num_sources,
        clip_ids=tuple(ids),
        clip_tokens=tuple(counts),
        map=np.argsort(order_V)[map_S].astype(dtype),
        tokens_dtype=clip.tokens_dtype,
        parent=parent_V.numpy().astype(dtype),
        loss=loss_V.numpy(),
        fidelity=float(torch.linalg.vector_norm(sum_VD.double(), dim=1).sum()) / num_sources,
        **means,
    )


def _clip_totals(clip: TokenSet, first_step: int, tubelet_frames: int) -> NDArray[np.float64]:
    step_J1 = clip.centers[:, :1].astype(np.float64)
    time_J1 = np.interp(step_J1, np.arange(clip.grid_thw[0]), clip.frame_time_ns[::tubelet_frames].astype(np.float64))
    places_J4 = np.concatenate((step_J1 + first_step, clip.centers[:, 1:], time_J1), axis=1, dtype=np.float64)
    values_JD = decoded_tokens(clip.tokens, clip.tokens_dtype, clip.tokens_scale)
    return _totals(values_JD, places_J4, clip.sizes, masses(clip))


def _totals(
    values_MD: NDArray[np.float32],
    places_M4: NDArray[np.float64],
    sizes_M: NDArray[np.signedinteger],
    weights_M: NDArray[np.float32],
) -> NDArray[np.float64]:
    """(M, D + 6) what adds up: tokens times weight; t, y, x and time, times size; size; weight."""
    sizes_M1, weights_M1 = sizes_M.astype(np.float64)[:, None], weights_M.astype(np.float64)[:, None]
    return np.concatenate((values_MD * weights_M1, places_M4 * sizes_M1, sizes_M1, weights_M1), axis=1)


def _means(totals: NDArray[np.float64], dtype: str) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """The order of the tokens by time, then y, then x, and fields of `VideoTokens` in that order, from totals."""
    sizes_V, weights_V = totals[:, -2], totals[:, -1]
    places_V4 = totals[:, -PLACE_COLUMNS:-2] / sizes_V[:, None]
    order_V = np.lexsort((places_V4[:, 2], places_V4[:, 1], places_V4[:, 3]))
    totals, places_V4, sizes_V, weights_V = totals[order_V], places_V4[order_V], sizes_V[order_V], weights_V[order_V]
    # All weights of a token may be 0: it is then no more than a place.
    values_VD = totals[:, :-PLACE_COLUMNS] / np.where(weights_V > 0, weights_V, 1)[:, None]
    tokens, scale = stored_tokens(torch.from_numpy(values_VD).float(), dtype)
    return order_V, {
        "tokens": tokens,
        "tokens_scale": scale,
        "sizes": sizes_V.round().astype(np.int64),
        "weights": weights_V.astype(np.float32),
        "centers": places_V4[:, :3].astype(np.float32),
        "time_ns": places_V4[:, 3].round().astype(np.int64),
    }


def coarsened_video(video: VideoTokens, cut: Cut) -> VideoTokens:
    """The video with as many tokens as a cut leaves.

    Args:
        video: the tokens.
        cut: `keep` is a share of the video's source patches.
    """
    left = cut.count(video.loss, video.fidelity, video.num_sources)
    if left == len(video.tokens):
        return video
    kept_v, into_V = cut_map(video.parent.astype(np.int64), video.loss, left)
    values_VD = decoded_tokens(video.tokens, video.tokens_dtype, video.tokens_scale)
    places_V4 = np.concatenate((video.centers, video.time_ns[:, None]), axis=1, dtype=np.float64)
    totals = torch.from_numpy(_totals(values_VD, places_V4, video.sizes, video.weights))
    order_v, means = _means(scattered_sum(totals, torch.from_numpy(into_V), left).numpy(), video.tokens_dtype)
    place_v, kept_v = np.argsort(order_v), kept_v[order_v]
    return replace(
        video,
        map=place_v[into_V[video.map]].astype(video.map.dtype),
        parent=place_v[into_V[video.parent[kept_v].astype(np.int64)]].astype(video.parent.dtype),
        loss=video.loss[kept_v],
        fidelity=float(stored_fidelities(video.loss, video.fidelity, video.num_sources)[left - 1]),
        **means,
    )
