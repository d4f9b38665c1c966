"""Every setting measured on the same clips: fidelity, neighbours, bytes and seconds an hour of video."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from jobs.budget.neighbours import agreement, frame_directions, nearest_frames
from jobs.budget.samples import Sample
from jobs.budget.settings import Setting
from pipeline.cache.token_values import decoded_tokens, stored_tokens
from pipeline.errors import InputError
from vtm import MergePlan, token_cosines

S_PER_HOUR = 3600
BINS = 20_000
"""Of a histogram of cosines from -1 to 1: percentiles are known to 0.0001, whatever the number of patches."""
ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRow:
    """What one setting keeps and costs."""

    options: str
    """As they are given to `vtm extract`."""
    strategy: str
    keep: float | None
    tokens_per_clip: float
    share_left: float
    mean_cosine: float
    """Between each patch's token and what represents it, as it is stored."""
    p5_cosine: float
    """Its 5th percentile: one patch in twenty is represented worse."""
    neighbour_agreement: float | None
    """Share of frames whose most similar frame elsewhere is the one that unmerged tokens find."""
    bytes_per_hour: float
    merge_s_per_hour: float
    total_s_per_hour: float
    """Of decoding, encoding and merging one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All settings on the same clips."""

    videos: int
    clips: int
    frames: int
    video_s: float
    decode_s_per_hour: float
    encode_s_per_hour: float
    rows: tuple[BudgetRow, ...]


@dataclass(slots=True)
class _Sums:
    """A setting's figures, added up over clips."""

    histogram: np.ndarray[tuple[int], np.dtype[np.int64]] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    cosine: float = 0.0
    tokens: int = 0
    size_bytes: int = 0
    merge_s: float = 0.0
    frames: list[Tensor] = field(default_factory=list)


def measure(samples: Iterable[Sample], settings: Sequence[Setting], dtype: str) -> Measured:
    """Merge every clip by every setting.

    Args:
        samples: One clip after the other; none is kept.
        settings: What to compare.
        dtype: In which tokens are stored.

    Raises:
        MergeError: features are not finite.
        InputError: there is no clip.
    """
    sums = {setting: _Sums() for setting in settings}
    unmerged, videos, times = [], [], []
    decode_s = encode_s = video_s = 0.0
    patches = 0
    for sample in samples:
        features = sample.features
        sources_1ND, num_frames = features.sources(), features.grid[0]
        patches += sources_1ND.shape[1]
        decode_s, encode_s = decode_s + sample.decode_s, encode_s + sample.encode_s
        video_s += sample.length_s
        unmerged.append(frame_directions(sources_1ND[0], num_frames))
        videos += [sample.spec.video_id] * num_frames
        times.append(np.linspace(sample.spec.start_ns, sample.spec.end_ns, num_frames, endpoint=False) / 1e9)
        for setting, so_far in sums.items():
            _add(so_far, sample, setting, dtype)
    if not unmerged:
        raise InputError("there is no clip to measure: name a video that can be read")
    _, video_F = np.unique(videos, return_inverse=True)
    time_F = np.concatenate(times)
    hours, base_s = video_s / S_PER_HOUR, decode_s + encode_s
    wanted_F = nearest_frames(torch.cat(unmerged), video_F, time_F)
    rows = []
    for setting, total in sums.items():
        found_F = nearest_frames(torch.cat(total.frames), video_F, time_F)
        rows.append(
            BudgetRow(
                options=setting.options,
                strategy=setting.strategy,
                keep=setting.keep,
                tokens_per_clip=total.tokens / len(unmerged),
                share_left=total.tokens / patches,
                mean_cosine=total.cosine / patches,
                p5_cosine=_percentile(total.histogram, 0.05),
                neighbour_agreement=agreement(wanted_F, found_F, video_F, time_F),
                bytes_per_hour=total.size_bytes / hours,
                merge_s_per_hour=total.merge_s / hours,
                total_s_per_hour=(base_s + total.merge_s) / hours,
            )
        )
    return Measured(
        videos=len(set(videos)),
        clips=len(unmerged),
        frames=len(time_F),
        video_s=video_s,
        decode_s_per_hour=decode_s / hours,
        encode_s_per_hour=encode_s / hours,
        rows=tuple(rows),
    )


def cheapest(rows: Sequence[BudgetRow], reach: float) -> BudgetRow | None:
    """The setting of fewest bytes whose mean cosine is at least `reach`; of equal ones the fastest."""
    enough = [row for row in rows if row.mean_cosine >= reach]
    return min(enough, key=lambda row: (row.bytes_per_hour, row.total_s_per_hour), default=None)


def clip_bytes(num_tokens: int, num_sources: int, dim: int, dtype: str, *, has_tree: bool) -> int:
    """Bytes of a clip's row but for a few hundred of names and times, whatever the shard's format."""
    index_bytes = 2 if num_tokens <= 1 << 16 else 4
    token_bytes = dim * ITEM_BYTES[dtype] + 4 + 12 + (4 if dtype == "int8" else 0)
    tree_bytes = index_bytes + 4 if has_tree else 0
    return num_tokens * (token_bytes + tree_bytes) + num_sources * index_bytes + 4 * dim


def _add(so_far: _Sums, sample: Sample, setting: Setting, dtype: str) -> None:
    features = sample.features
    sources_1ND = features.sources()
    began_s = time.perf_counter()
    later = setting.plan(sample)
    plan = later if features.inside is None else features.inside.then(later)
    tokens_1MD = plan.mean(sources_1ND)
    so_far.merge_s += time.perf_counter() - began_s + (sample.motion_s if setting.strategy == "motion" else 0.0)
    stored_1MD = _as_stored(tokens_1MD, dtype)
    cosine_N = token_cosines(sources_1ND, plan, stored_1MD)[0].double().cpu().numpy()
    so_far.histogram += np.histogram(cosine_N, bins=BINS, range=(-1, 1 + 1e-6))[0]
    so_far.cosine += float(cosine_N.sum())
    so_far.tokens += plan.num_groups
    so_far.size_bytes += clip_bytes(
        plan.num_groups, sources_1ND.shape[1], sources_1ND.shape[2], dtype, has_tree=setting.has_tree
    )
    so_far.frames.append(frame_directions(_represented(plan, stored_1MD), features.grid[0]))


def _as_stored(tokens_1MD: Tensor, dtype: str) -> Tensor:
    """(1, M, D) float32, rounded as it is written."""
    stored, scale = stored_tokens(tokens_1MD[0].float(), dtype)
    return torch.from_numpy(decoded_tokens(stored, dtype, scale))[None].to(tokens_1MD.device)


def _represented(plan: MergePlan, tokens_1MD: Tensor) -> Tensor:
    """(N, D) the token of each patch."""
    spread_1ND: Tensor = plan.spread(tokens_1MD)
    return spread_1ND[0]


def _percentile(histogram: np.ndarray[tuple[int], np.dtype[np.int64]], share: float) -> float:
    """The value below which a share of the cosines lies, to the width of a bin."""
    rank = max(1, math.ceil(share * int(histogram.sum())))
    return float(np.searchsorted(histogram.cumsum(), rank) + 0.5) * 2 / BINS - 1
