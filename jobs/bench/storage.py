"""`vtm bench storage`: what an hour of video takes in each dtype of tokens, what that loses, and what zstd would save.

The loss is the cosine between a token as the run stores it and as it comes back from another dtype: of a run of float16
or float32, so that the tokens themselves are as good as exact.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from jobs.bench.machine import machine_name
from jobs.bench.numbers import share
from jobs.bench.options import add_json_option
from jobs.bench.output import Columns, print_columns, show
from jobs.bench.timing import repeated_s
from pipeline.cache.cut import Cut, check_cut, coarsened
from pipeline.cache.token_cache import TokenCache
from pipeline.cache.token_values import decoded_tokens, stored_tokens
from pipeline.counted import counted
from pipeline.errors import RunFolderError, SettingsError
from pipeline.shards.columns import PAYLOAD, row_of
from pipeline.shards.four_bits import dequantized, packed, quantized
from pipeline.values import TokenSet

NAMES = ("float32", "float16", "bfloat16", "int8", "int4, groups of 16", "int4", "int4, groups of 64")
ZSTD_LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DtypeRow:
    """One dtype of tokens."""

    name: str
    bytes_per_token: float
    """Of its channels and scales."""
    bytes_per_hour: float
    """Of video, with sizes, centres, map and tree."""
    mean_cosine: float
    low_cosine: float
    """Of the twentieth that is worst off."""
    zstd_share: float
    """What zstd leaves of the tokens' bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnRow:
    """One column of raw bytes, compressed by zstd."""

    name: str
    bytes_per_hour: float
    zstd_share: float
    read_bytes_per_s: float
    """Uncompressed bytes a second of decompressing."""


DTYPES: Columns = {
    "tokens": lambda row: row["name"],
    "bytes a token": lambda row: f"{row['bytes_per_token']:.0f}",
    "MB an hour": lambda row: f"{row['bytes_per_hour'] / 1e6:.1f}",
    "mean cosine": lambda row: f"{row['mean_cosine']:.5f}",
    "worst 5 %": lambda row: f"{row['low_cosine']:.5f}",
    "zstd leaves": lambda row: f"{row['zstd_share']:.2f}",
}
COLUMNS: Columns = {
    "column": lambda row: row["name"],
    "MB an hour": lambda row: f"{row['bytes_per_hour'] / 1e6:.2f}",
    "zstd leaves": lambda row: f"{row['zstd_share']:.2f}",
    "read at MB/s": lambda row: f"{row['read_bytes_per_s'] / 1e6:.0f}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and its budget."""
    parser.add_argument("out", metavar="RUN", help="run folder of --dtype float16 or float32")
    parser.add_argument(
        "--keep",
        type=share,
        metavar="SHARE",
        help="share of the source patches to cut to, of a run with trees (default: all that is stored)",
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    torch.set_num_threads(1)
    cache = TokenCache(options.out)
    dtype = cache.run["settings"].get("dtype", "float16")
    if dtype not in ("float16", "float32"):
        raise SettingsError(
            f"{options.out} holds {dtype}, of which a loss cannot be told: give a run of float16 or float32"
        )
    if not len(cache):
        raise RunFolderError(f"{options.out} holds no clips to measure")
    clips = list(_clips(cache, None if options.keep is None else Cut(keep=options.keep)))
    hours = sum(clip.end_ns - clip.start_ns for clip in clips) / 3.6e12
    columns = measure_columns(clips, hours)
    rows = measure_dtypes(clips, hours, sum(c.bytes_per_hour for c in columns if not c.name.startswith("tokens")))
    show(
        [asdict(row) for row in rows],
        machine=machine_name("cpu", 1),
        as_json=options.json,
        columns=DTYPES,
        title=f"{counted(len(clips), 'clip')}, {hours:.3f} h, "
        f"{sum(len(c.tokens) for c in clips) / hours:.0f} tokens an hour",
        more={"hours": hours, "columns": [asdict(row) for row in columns]},
    )
    if not options.json:
        print_columns([asdict(row) for row in columns], COLUMNS)
    return 0


def _clips(cache: TokenCache, cut: Cut | None) -> Iterator[TokenSet]:
    if cut is not None:
        check_cut(cache.path, cache.run, cut)
    for position in range(len(cache)):
        clip = cache.token_set(position)
        yield clip if cut is None else coarsened(clip, cut)


def measure_dtypes(clips: list[TokenSet], hours: float, other_bytes_per_hour: float) -> list[DtypeRow]:
    """Every dtype, for the same tokens."""
    rows = []
    for name in NAMES:
        size_bytes = num_tokens = 0
        cosines, stored = [], []
        for clip in clips:
            exact_MD = torch.from_numpy(decoded_tokens(clip.tokens, clip.tokens_dtype, clip.tokens_scale))
            data, back_MD = _stored(name, exact_MD)
            size_bytes, num_tokens = size_bytes + len(data), num_tokens + len(exact_MD)
            cosines.append(torch.nn.functional.cosine_similarity(exact_MD.double(), torch.from_numpy(back_MD).double()))
            stored.append(data)
        cosine = torch.cat(cosines)
        rows.append(
            DtypeRow(
                name=name,
                bytes_per_token=size_bytes / num_tokens,
                bytes_per_hour=size_bytes / hours + other_bytes_per_hour,
                mean_cosine=float(cosine.mean()),
                low_cosine=float(cosine.quantile(0.05)),
                zstd_share=_zstd(b"".join(stored))[0],
            )
        )
    return rows


def _stored(name: str, exact_MD: torch.Tensor) -> tuple[bytes, NDArray[np.float32]]:
    """The bytes of tokens and scales, and the numbers that they give."""
    dtype, _, group = name.partition(", groups of ")
    if group:
        numbers, scale = (part.numpy() for part in quantized(exact_MD, int(group)))
        return packed(numbers).tobytes() + scale.tobytes(), dequantized(numbers, scale, int(group))
    tokens, scales = stored_tokens(exact_MD, dtype)
    data = (packed(tokens) if dtype == "int4" else tokens).tobytes()
    return data + (b"" if scales is None else scales.tobytes()), decoded_tokens(tokens, dtype, scales)


def measure_columns(clips: list[TokenSet], hours: float) -> list[ColumnRow]:
    """Every column of raw bytes, as it is stored."""
    held: dict[str, list[bytes]] = {name: [] for name in PAYLOAD}
    for clip in clips:
        row = row_of(clip)
        for name, cells in held.items():
            if row[name] is not None:
                cells.append(row[name])
    rows = []
    for name, cells in held.items():
        data = b"".join(cells)
        if data:
            share, read_s = _zstd(data)
            rows.append(
                ColumnRow(
                    name=name.removesuffix("_bytes"),
                    bytes_per_hour=len(data) / hours,
                    zstd_share=share,
                    read_bytes_per_s=len(data) / read_s,
                )
            )
    return rows


def _zstd(data: bytes) -> tuple[float, float]:
    """What is left of the bytes, and the seconds that reading them takes: the fastest of three."""
    codec = pa.Codec("zstd", ZSTD_LEVEL)
    small = codec.compress(data, asbytes=True)
    return len(small) / len(data), min(repeated_s(partial(codec.decompress, small, len(data)), 3))
