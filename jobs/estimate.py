"""What a run of some inputs comes to, by scanning in parallel: mp4 by its tables, other containers by their packets."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from pipeline.errors import DecodeError
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input
from pipeline.run_description import EncoderDescription
from pipeline.settings import Recipe
from pipeline.values import PictureSpec

TYPICAL_SHARE = 0.1
"""Assumed share of tokens left where `fidelity` is asked for: the true one depends on the pixels."""
TABLE_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".3gp"})
FEW = 4
"""So few inputs are scanned in this process, which is faster than to start others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one video comes to."""

    uri: str
    video_id: str = ""
    codec: str = ""
    duration_s: float = 0.0
    clips: int = 0
    frames: int = 0
    tokens: int = 0
    size_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """What the estimate needs to know of the encoder and the merging."""

    recipe: Recipe
    picture: PictureSpec
    dim: int
    tubelet_frames: int
    by_network: Callable[[tuple[int, int, int]], int] | None = None
    """(T, H, W) to tokens, where a trained network decides."""

    def of_clip(self, frames: int, shown_hw: tuple[int, int]) -> tuple[int, int]:
        """Source patches and tokens left of a clip with so many frames, of a video shown at a height and width."""
        from pipeline.video.resize import fitted

        grid_hw = fitted(self.picture, shown_hw).grid_hw
        steps = -(-frames // self.tubelet_frames)
        sources = steps * grid_hw[0] * grid_hw[1]
        if self.by_network is not None:
            return sources, self.by_network((steps, *grid_hw))
        return sources, tokens_left(self.recipe, sources)

    @property
    def token_bytes(self) -> int:
        """Bytes of a token on disk: channels, size and centre, and in a tree its parent and loss."""
        # Of int4 half a byte, and four bytes for 32 channels.
        item = {"int4": 0.625, "int8": 1, "float32": 4}.get(self.recipe.dtype, 2)
        return math.ceil(self.dim * item) + 4 + 12 + (2 + 4 if self.recipe.strategy == "tree" else 0)


def token_count(recipe: Recipe, encoder: EncoderDescription, picture: PictureSpec) -> TokenCount:
    """How a recipe turns frames into tokens."""
    by_network = None
    if encoder.vtm_decides_count and recipe.scorer is not None:
        from vtm.network import load_network
        from vtm.network import tokens_left as network_tokens_left

        by_network = partial(network_tokens_left, load_network(recipe.scorer).config)
    return TokenCount(
        recipe=recipe,
        picture=picture,
        dim=encoder.dim,
        tubelet_frames=encoder.tubelet_frames,
        by_network=by_network,
    )


def estimate(inputs: Sequence[str], count: TokenCount, workers: int | None = None) -> list[Estimate]:
    """Scan every input; the longest first, each content once.

    Raises:
        InputError: the inputs name nothing.
    """
    from pipeline.inputs.sources import find_inputs

    found = list(find_inputs(inputs))
    rows = [_failed(item.uri, item.message) for item in found if isinstance(item, FailedRange)]
    uris = [item.uri for item in found if isinstance(item, Input)]
    seen: set[str] = set()
    for row in _scan_all(uris, count, workers or os.cpu_count() or 1):
        if not row.video_id or row.video_id not in seen:
            seen.add(row.video_id)
            rows.append(row)
    return sorted(rows, key=lambda row: -row.duration_s)


def _scan_all(uris: Sequence[str], count: TokenCount, workers: int) -> Iterator[Estimate]:
    scan = partial(estimate_video, count)
    if len(uris) <= FEW or workers == 1:
        yield from map(scan, uris)
        return
    context = multiprocessing.get_context("spawn")
    alone: list[str] = []
    with ProcessPoolExecutor(min(workers, len(uris)), mp_context=context) as pool:
        futures = [(uri, pool.submit(scan, uri)) for uri in uris]
        for uri, future in futures:
            try:
                yield future.result()
            except BrokenProcessPool:
                alone.append(uri)
    for uri in alone:
        # A crash takes the whole pool with it; scanned alone, each video answers for itself.
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                yield pool.submit(scan, uri).result()
            except BrokenProcessPool:
                yield _failed(uri, "[crash] the decoder crashed while scanning it")


def estimate_video(count: TokenCount, uri: str) -> Estimate:
    """Scan one video, and count its clips, frames and tokens."""
    from pipeline.inputs.sources import identify
    from pipeline.plan.clips import plan_clips
    from pipeline.plan.spans import id_of_part, split_address
    from pipeline.plan.videos import plan_video
    from pipeline.video import scan_video

    recipe = count.recipe
    try:
        source = identify(uri)
        address, part = split_address(uri)
        info = scan_video(replace(source, uri=_by_ranges(address)))
        part_id = id_of_part(source.video_id, part)
        info = replace(info, source=replace(info.source, uri=uri, video_id=part_id))
        video = plan_video(info, fps=recipe.fps, clip_frames=recipe.clip_frames)
    except (DecodeError, OSError) as error:
        failure = f"[{error.failure}] " if isinstance(error, DecodeError) else ""
        return _failed(uri, f"{failure}{error}".replace(_by_ranges(split_address(uri)[0]), uri))
    clips = plan_clips(info, fps=recipe.fps, clip_frames=recipe.clip_frames, frames=recipe.frames)
    frames = [len(clip.frame_pts) for clip in clips]
    counts = [count.of_clip(number, (info.height_px, info.width_px)) for number in frames]
    sources, tokens = (sum(column) for column in zip(*counts, strict=True))
    return Estimate(
        uri=uri,
        video_id=part_id,
        codec=video.codec,
        duration_s=(video.end_ns - video.start_ns) / 1e9 if video.first_instant else video.duration_found_s,
        clips=video.num_clips,
        frames=sum(frames),
        tokens=tokens,
        size_bytes=tokens * count.token_bytes + sources * 2,
    )


def _by_ranges(uri: str) -> str:
    """An address under which a local mp4 file is read as remote ones are: its tables and a few packets, not all."""
    is_plain = "://" not in uri and "::" not in uri and not set(uri) & set("?#*[]%")
    if not is_plain or PurePosixPath(uri).suffix.lower() not in TABLE_SUFFIXES:
        return uri
    return f"file://{Path(uri).absolute()}"


def _failed(uri: str, problem: str) -> Estimate:
    return Estimate(uri=uri, problem=problem)


def tokens_left(recipe: Recipe, num_sources: int) -> int:
    """Tokens that a clip of so many source patches keeps."""
    from vtm.budget import Budget, num_merged

    if recipe.strategy == "none":
        return num_sources
    if recipe.fidelity is not None:
        return math.ceil(num_sources * TYPICAL_SHARE)
    budget = Budget(
        partition_factor=recipe.partition_factor,
        keep=recipe.share_kept,
        num_tokens=recipe.tokens_per_clip,
        merge_share=recipe.merge_share,
    )
    return num_sources - num_merged(num_sources - budget.targets(num_sources), recipe.merge_share)
