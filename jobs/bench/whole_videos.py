"""Whole videos and streams of hours, measured for `vtm bench tree`: clips as a run stores them, merged across clips."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.bench.memory import resident_bytes
from jobs.bench.timing import timed
from pipeline.cache.token_values import directions_of, stored_tokens
from pipeline.cache.video_tokens import VideoTokens, merge_video
from pipeline.values import TokenSet
from vtm import Grid, MergeTree, merge_plan, merge_tree
from vtm.agglomeration import agglomerate
from vtm.growing import base_for
from vtm.tree import cut_groups

VIDEO_SHARES = (0.1, 0.02)
LLOYD_STEPS = 2
SEARCH_STEPS = 7


def unit_fidelity(x_1NC: Tensor, group_1N: Tensor, num_groups: int) -> float:
    """Mean cosine between the tokens and the mean of their group's unit tokens."""
    sum_GC = torch.zeros(num_groups, x_1NC.shape[2], dtype=torch.float64)
    sum_GC.index_add_(0, group_1N[0], F.normalize(x_1NC[0], dim=1).double())
    return float(sum_GC.norm(dim=1).sum()) / group_1N.shape[1]


def whole_video(clips: Sequence[Tensor], grid_hw: tuple[int, int], stored: float) -> list[dict[str, Any]]:
    """For two shares: coverage clip by clip, the stream, one tree over all, and what equals coverage.

    Args:
        clips: (1, N, C) tokens of each, the last of which may be of fewer frames.
        grid_hw: patches of a frame.
        stored: share of the tokens that a run keeps of each clip, from which the video is merged.
    """
    sets = [stored_clip(x_1NC, index, grid_hw, stored) for index, x_1NC in enumerate(clips)]
    sizes = [x_1NC.shape[1] for x_1NC in clips]
    sums = torch.cat([directions_of(each) for each in sets])
    parent_S, loss_S = agglomerate(sums, torch.cat([torch.from_numpy(each.sizes) for each in sets]))
    rows = []
    for share in VIDEO_SHARES:
        anew = []
        for index, x_1NC in enumerate(clips):
            grid = sets[index].grid_thw
            plan = merge_plan(x_1NC, strategy="coverage", grid=grid, keep=share, seed=index)
            anew.append(unit_fidelity(x_1NC, plan.group, plan.num_groups))
        target = float(np.average(anew, weights=sizes))
        left = round(share * sum(sizes))
        stream, stream_s = timed(partial(merge_video, lambda: iter(sets), left))
        into_S = cut_groups(parent_S[None], loss_S[None], left)[1][0]
        rows.append(
            {
                "stored": stored,
                "keep": share,
                "coverage": round(target, 4),
                "stream": round(video_fidelity(clips, sets, torch.from_numpy(stream.map.astype(np.int64)), left), 4),
                "one_tree": round(video_fidelity(clips, sets, into_S, left), 4),
                "told": round(stream.fidelity, 4),
                "stream_s": round(stream_s, 2),
                "saved": round(1 - equal_share(clips, sets, target, left, 0) / left, 3),
                "saved_with_lloyd": round(1 - equal_share(clips, sets, target, left, LLOYD_STEPS) / left, 3),
            }
        )
    return rows


def stored_clip(x_1NC: Tensor, index: int, grid_hw: tuple[int, int], stored: float) -> TokenSet:
    """A clip as `vtm extract --keep` stores it."""
    grid = (x_1NC.shape[1] // (grid_hw[0] * grid_hw[1]), *grid_hw)
    tree = merge_tree(x_1NC, grid=grid, base=base_for(stored)).coarsen(keep=stored).ordered_by_center(grid)
    return token_set(tree, x_1NC, index, grid)


def equal_share(clips: Sequence[Tensor], sets: Sequence[TokenSet], target: float, most: int, lloyd_steps: int) -> int:
    """The fewest tokens of the video, to a hundredth of `most`, that have a fidelity."""
    low, high = 0, most
    for _ in range(SEARCH_STEPS):
        middle = (low + high + 1) // 2
        video: VideoTokens = merge_video(lambda: iter(sets), middle, lloyd_steps)
        got = video_fidelity(clips, sets, torch.from_numpy(video.map.astype(np.int64)), len(video.tokens))
        low, high = (low, middle) if got >= target else (middle, high)
    return high


def video_fidelity(clips: Sequence[Tensor], sets: Sequence[TokenSet], map_S: Tensor, left: int) -> float:
    """Mean cosine between the source tokens of all clips and the video's tokens."""
    sum_VC = torch.zeros(left, clips[0].shape[2], dtype=torch.float64)
    at = 0
    for x_1NC, stored in zip(clips, sets, strict=True):
        to_N = map_S[at : at + len(stored.tokens)][torch.from_numpy(stored.group.astype(np.int64))]
        sum_VC.index_add_(0, to_N, F.normalize(x_1NC[0], dim=1).double())
        at += len(stored.tokens)
    return float(sum_VC.norm(dim=1).sum()) / sum(x_1NC.shape[1] for x_1NC in clips)


def hours_long(sets: Sequence[TokenSet], num_clips: int, clip_s: float, num_tokens: int) -> dict[str, Any]:
    """Seconds and memory of a stream of `num_clips` clips.

    Memory is what is resident after each clip, not the process's peak, which growing the trees before may have set.
    """
    held_bytes: list[int] = []

    def clips() -> Iterator[TokenSet]:
        for index in range(num_clips):
            again, which = divmod(index, len(sets))
            order = np.random.default_rng(again).permutation(sets[which].tokens.shape[1])
            clip_id = f"bench-{index:06d}"
            yield replace(sets[which], tokens=sets[which].tokens[:, order], clip_id=clip_id, clip_index=index)
            held_bytes.append(resident_bytes("VmRSS"))

    start, start_cpu = time.perf_counter(), time.process_time()
    video = merge_video(clips, num_tokens)
    tenth = max(1, num_clips // 10)
    return {
        "hours": round(num_clips * clip_s / 3600, 2),
        "clips": num_clips,
        "stored_tokens": len(video.map),
        "tokens": len(video.tokens),
        "fidelity": round(video.fidelity, 4),
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(time.process_time() - start_cpu, 1),
        "resident_first_tenth_bytes": max(held_bytes[:tenth]),
        "resident_last_tenth_bytes": max(held_bytes[-tenth:]),
    }


def token_set(tree: MergeTree, x_1NC: Tensor, index: int, grid: Grid) -> TokenSet:
    """The base of a clip's tree, in the order of its centres, as a row in float16."""
    base = tree.base
    tokens, _ = stored_tokens(base.mean(x_1NC)[0], "float16")
    return TokenSet(
        clip_id=f"bench-{index:06d}",
        video_id="bench",
        uri="bench",
        clip_index=index,
        start_ns=0,
        end_ns=0,
        frame_time_ns=np.arange(grid[0], dtype=np.int64) + index * grid[0],
        grid_thw=grid,
        tokens=tokens,
        tokens_dtype="float16",
        tokens_scale=None,
        sizes=base.sizes[0].numpy(),
        centers=base.centers(grid)[0].numpy(),
        group=base.group[0].numpy().astype(np.uint16),
        pooled=np.zeros(tokens.shape[1], dtype=np.float32),
        fidelity=float(tree.base_fidelity[0]),
        motion_source="none",
        damaged_frames=0,
        parent=tree.parents[0].numpy().astype(np.uint16),
        loss=tree.losses[0].numpy(),
    )
