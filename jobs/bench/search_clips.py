"""Search in a made-up cache: seconds to open it, to load it, and for queries, exact and by an approximate index."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jobs.bench.timing import timed
from pipeline import TokenCache
from pipeline.search.query import Query, query_of_pictures
from pipeline.search.searcher import Searcher
from pipeline.shards.manifest import write_shard
from pipeline.values import PictureSpec, TokenSet

SHARD_CLIPS = 64
QUERIES = 11
NS_PER_S = 1_000_000_000


def search_many(num_clips: int, num_tokens: int, dim: int, seed: int, *, by_index: bool = False) -> dict[str, Any]:
    """Seconds to open a cache of made-up clips, and for queries by clip, the first of which find nothing in memory."""
    with tempfile.TemporaryDirectory() as out:
        _write_run(Path(out), num_clips, num_tokens, dim, seed)
        searcher, open_s = timed(lambda: Searcher(TokenCache(out)))
        wanted = [int(number) for number in np.random.default_rng(seed).choice(num_clips, QUERIES)]
        queries = [_picture_of(searcher.cache, number) for number in wanted]
        cold, cold_cpu, _ = _timed(searcher, queries[:1])
        _, load_s = timed(searcher.load)
        warm, warm_cpu, found = _timed(searcher, queries)
        indexed = _search_by_index(Path(out), queries, wanted) if by_index else {}
    return {
        "name": "clips",
        "clips": num_clips,
        "tokens_per_clip": num_tokens,
        "dim": dim,
        "queries": QUERIES,
        "right_clip": sum(got == number for got, number in zip(found, wanted, strict=True)),
        "open_s": round(open_s, 3),
        "unread_query_s": round(cold[0], 3),
        "unread_query_cpu_s": round(cold_cpu[0], 3),
        "load_s": round(load_s, 3),
        "median_query_s": round(float(np.median(warm)), 3),
        "slowest_query_s": round(max(warm), 3),
        "median_query_cpu_s": round(float(np.median(warm_cpu)), 3),
        **indexed,
    }


def _write_run(out: Path, num_clips: int, num_tokens: int, dim: int, seed: int) -> None:
    """A run folder of made-up clips."""
    sides: dict[str, Any] = dict.fromkeys(
        ("resize_height_px", "resize_width_px", "crop_height_px", "crop_width_px"), 256
    )
    picture = asdict(PictureSpec(resize_mode="exact", patch_px=16, **sides))
    run = {
        "schema_version": 2,
        "fingerprint": "0" * 16,
        "settings": {"strategy": "tree", "clip_frames": 60},
        "fingerprinted": {"picture": picture},
        "encoder": {"name": "made", "dim": dim},
        "versions": {},
    }
    for shard in range(-(-num_clips // SHARD_CLIPS)):
        numbers = range(shard * SHARD_CLIPS, min((shard + 1) * SHARD_CLIPS, num_clips))
        write_shard(out, f"{shard:016x}", list(_made_up(numbers, num_tokens, dim, seed)), [], run, ("parquet",))
    (out / "run.json").write_text(json.dumps(run))


def _search_by_index(out: Path, queries: Sequence[Query], wanted: Sequence[int]) -> dict[str, Any]:
    """Seconds to make an index, to open it again, and for queries that read their candidates' tokens."""
    path = out / "clips.faiss"
    _, make_s = timed(lambda: Searcher(TokenCache(out), index=path))
    searcher, open_s = timed(lambda: Searcher(TokenCache(out), index=path))
    wall, _, found = _timed(searcher, queries)
    return {
        "index_make_s": round(make_s, 3),
        "index_bytes": path.stat().st_size,
        "index_open_s": round(open_s, 3),
        "index_median_query_s": round(float(np.median(wall)), 3),
        "index_slowest_query_s": round(max(wall), 3),
        "index_right_clip": sum(got == number for got, number in zip(found, wanted, strict=True)),
    }


def _timed(searcher: Searcher, queries: Sequence[Query]) -> tuple[list[float], list[float], list[int]]:
    """Wall and CPU seconds of each query, and the position of the clip that it finds first."""
    wall, cpu, found = [], [], []
    for query in queries:
        began_cpu_s = time.process_time()
        matches, wall_s = timed(partial(searcher.search, query))
        cpu.append(time.process_time() - began_cpu_s)
        wall.append(wall_s)
        found.append(matches[0].position)
    return wall, cpu, found


def _picture_of(cache: TokenCache, position: int) -> Query:
    """A frame of a made-up clip, as a picture's query is made."""
    clip = cache.token_set(position)
    tokens = clip.tokens[clip.group.reshape(60, -1)[29]].astype(np.float32)
    pooled = tokens.mean(axis=0)
    picture = replace(
        clip,
        grid_thw=(1, 16, 16),
        tokens=tokens,
        tokens_dtype="float32",
        group=np.arange(256, dtype=np.uint16),
        pooled=(pooled / np.linalg.norm(pooled)).astype(np.float32),
    )
    return query_of_pictures([picture])


def _made_up(numbers: Sequence[int], num_tokens: int, dim: int, seed: int) -> Iterator[TokenSet]:
    """Clips of a minute with 16 x 16 patches a frame, each around a direction of its own."""
    for number in numbers:
        random = np.random.default_rng((seed, number))
        around = random.normal(size=dim) + 0.7 * random.normal(size=(num_tokens, dim))
        group = np.sort(np.concatenate([np.arange(num_tokens), random.integers(0, num_tokens, 15360 - num_tokens)]))
        mean = around.mean(axis=0)
        yield TokenSet(
            clip_id=f"{'0' * 32}-{number:06d}",
            video_id="0" * 32,
            uri="made-up.mp4",
            clip_index=number,
            start_ns=number * 60 * NS_PER_S,
            end_ns=(number + 1) * 60 * NS_PER_S,
            frame_time_ns=(number * 60 + np.arange(60)) * NS_PER_S,
            grid_thw=(60, 16, 16),
            tokens=around.astype(np.float16),
            tokens_dtype="float16",
            tokens_scale=None,
            sizes=np.bincount(group, minlength=num_tokens).astype(np.int32),
            centers=np.zeros((num_tokens, 3), np.float32),
            group=group.astype(np.uint16),
            parent=np.minimum(np.arange(num_tokens) + 1, num_tokens - 1).astype(np.uint16),
            loss=np.append(np.arange(1, num_tokens), np.inf).astype(np.float32),
            pooled=(mean / np.linalg.norm(mean)).astype(np.float32),
            fidelity=0.9,
            motion_source="none",
            damaged_frames=0,
        )
