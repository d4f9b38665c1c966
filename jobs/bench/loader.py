"""`vtm bench loader`: clips and bytes a second of `TokenStream`, beside pyarrow reading the same bytes."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from jobs.bench.machine import machine_name
from jobs.bench.numbers import count
from jobs.bench.options import add_json_option, add_repeats_option
from jobs.bench.output import Columns, show
from pipeline.cache.clip_fields import TRAINING, parquet_columns
from pipeline.cache.token_cache import TokenCache
from pipeline.cache.token_stream import TokenStream
from pipeline.counted import counted
from pipeline.errors import SettingsError
from pipeline.shards.manifest import write_shard
from pipeline.values import TokenSet

RUN: dict[str, Any] = {"fingerprint": "0" * 16, "fingerprinted": {}, "settings": {"fps": "1"}, "encoder": {"dim": 384}}
GRID = (60, 16, 16)
SHARD_CLIPS = 32
COLUMNS = "pyarrow, columns"
"""Decodes the columns, and makes nothing of them."""
CELLS = "pyarrow, a tensor a cell"


TABLE: Columns = {
    "": lambda row: row["name"],
    "clips/s": lambda row: f"{row['clips_per_s']:.0f}",
    "MB/s": lambda row: f"{row['bytes_per_s'] / 1e6:.0f}",
    "CPU s": lambda row: f"{row['cpu_s']:.4f}",
    "of pyarrow": lambda row: f"{row['of_pyarrow']:.2f}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which cache, and how it is read."""
    parser.add_argument(
        "out", nargs="?", metavar="RUN", help="run folder in Parquet (default: one of random tokens is made)"
    )
    parser.add_argument("--clips", type=count, default=192, metavar="N", help="clips of the one that is made")
    parser.add_argument("--tokens-per-clip", type=count, default=768, metavar="M", help="tokens of each of these clips")
    parser.add_argument("--workers", type=count, default=2, metavar="N", help="workers of each data loader")
    add_repeats_option(parser, 7, "the fastest counts")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Measure in turns, so that a busy machine slows all alike; print."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(options.out or folder)
        if options.out is None:
            make_cache(out, options.clips, options.tokens_per_clip)
        rows = measure(out, options.workers, options.repeats)
    show(rows, machine=machine_name(), as_json=options.json, columns=TABLE)
    return 0


def measure(out: Path, num_workers: int, repeats: int) -> list[dict[str, Any]]:
    """Passes over a cache: pyarrow and `TokenStream` in this process, then behind the workers of a data loader.

    Raises:
        SettingsError: the run is not on disk in Parquet.
    """
    cache = TokenCache(out)
    paths = sorted((out / "shards").glob("*.parquet"))
    if not paths or not len(cache):
        raise SettingsError(
            f"{out} holds no Parquet shards on this machine: the benchmark compares with pyarrow's reader"
        )
    size_bytes = sum(_column_bytes(path) for path in paths)
    stream = TokenStream(cache, shuffle_seed=0)
    plain = _PlainRows(paths)
    passes: dict[str, Callable[[], int]] = {
        COLUMNS: lambda: sum(table.num_rows for table in read_groups(paths)),
        CELLS: lambda: sum(1 for _ in plain),
        "TokenStream": lambda: sum(1 for _ in stream),
    }
    if num_workers:
        loader = stream.loader(batch_size=1, num_workers=num_workers, collate_fn=_first)
        workers = counted(num_workers, "worker")
        rows_loader = DataLoader(plain, batch_size=None, num_workers=num_workers)
        passes[f"{CELLS}, {workers}"] = lambda: sum(1 for _ in rows_loader)
        passes[f"TokenStream, {workers}"] = lambda: sum(1 for _ in loader)
    best_s = dict.fromkeys(passes, (float("inf"), float("inf")))
    for _ in range(repeats):
        for name, read in passes.items():
            began_s, cpu_s = time.perf_counter(), time.process_time()
            count = read()
            spent_s = time.perf_counter() - began_s, time.process_time() - cpu_s
            best_s[name] = min(best_s[name][0], spent_s[0]), min(best_s[name][1], spent_s[1])
            assert count == len(cache), f"{name} read {count} of {counted(len(cache), 'clip')}"
    return [
        {
            "name": name,
            "clips": len(cache),
            "wall_s": wall_s,
            "cpu_s": cpu_s,
            "clips_per_s": len(cache) / wall_s,
            "bytes_per_s": size_bytes / wall_s,
            "of_pyarrow": _share(best_s, name),
        }
        for name, (wall_s, cpu_s) in best_s.items()
    ]


def _share(best_s: dict[str, tuple[float, float]], name: str) -> float:
    """How a row compares with pyarrow: in this process by CPU seconds, which a busy machine changes least."""
    if "workers" not in name:
        return best_s[COLUMNS][1] / best_s[name][1]
    peer = next(other for other in best_s if other.startswith(CELLS) and "workers" in other)
    return best_s[peer][0] / best_s[name][0]


def read_groups(paths: list[Path]) -> Iterator[pa.Table]:
    """The columns that training reads, group after group, by pyarrow alone."""
    for path in paths:
        with pa.memory_map(str(path)) as stream:
            file = pq.ParquetFile(stream)
            for group in range(file.metadata.num_row_groups):
                yield file.read_row_group(group, columns=parquet_columns(TRAINING))


class _PlainRows(IterableDataset[Any]):
    """What one would write without this package: shards in turn to the workers, each cell of bytes as a tensor."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        part = self._paths if worker is None else self._paths[worker.id :: worker.num_workers]
        for table in read_groups(part):
            for row in table.to_pylist():
                yield {
                    name: torch.from_numpy(np.frombuffer(value, np.uint8).copy()) if isinstance(value, bytes) else value
                    for name, value in row.items()
                }


def _first(batch: list[Any]) -> Any:
    return batch[0]


def _column_bytes(path: Path) -> int:
    metadata = pq.ParquetFile(path).metadata
    wanted = set(parquet_columns(TRAINING))
    columns = [
        metadata.row_group(group).column(number)
        for group in range(metadata.num_row_groups)
        for number in range(metadata.num_columns)
    ]
    return sum(c.total_compressed_size for c in columns if c.path_in_schema.partition(".")[0] in wanted)


def make_cache(out: Path, num_clips: int, num_tokens: int) -> None:
    """A cache of random tokens with the shapes of minutes at 1 fps."""
    random = np.random.default_rng(0)
    total = GRID[0] * GRID[1] * GRID[2]
    for first in range(0, num_clips, SHARD_CLIPS):
        clips = [
            _random_clip(random, index, num_tokens, total)
            for index in range(first, min(first + SHARD_CLIPS, num_clips))
        ]
        write_shard(out, f"{first:016x}", clips, [], RUN, ("parquet",))
    (out / "run.json").write_text(json.dumps(RUN), encoding="utf-8")


def _random_clip(random: np.random.Generator, index: int, num_tokens: int, total: int) -> TokenSet:
    group = np.concatenate([np.arange(num_tokens), random.integers(0, num_tokens, total - num_tokens)])
    return TokenSet(
        clip_id=f"{'0' * 32}-{index:06d}",
        video_id="0" * 32,
        uri="random.mp4",
        clip_index=index,
        start_ns=index * 60_000_000_000,
        end_ns=(index + 1) * 60_000_000_000,
        frame_time_ns=np.arange(60) * 1_000_000_000 + index * 60_000_000_000,
        grid_thw=GRID,
        tokens=random.normal(size=(num_tokens, 384)).astype(np.float16),
        tokens_dtype="float16",
        tokens_scale=None,
        sizes=np.bincount(group, minlength=num_tokens).astype(np.int32),
        centers=random.random((num_tokens, 3)).astype(np.float32),
        group=group.astype(np.uint16),
        pooled=np.full(384, 384**-0.5, np.float32),
        fidelity=0.9,
        motion_source="none",
        damaged_frames=0,
    )
