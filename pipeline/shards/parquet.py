"""Token sets to a Parquet shard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.columns import PAYLOAD, row_of, schema
from pipeline.shards.scan import METADATA_KEY
from pipeline.store import HashingFile
from pipeline.values import TokenSet

ROW_GROUP_BYTES = 16 << 20
"""Payload of a row group: small, so that reading one clip at random reads little else."""


def write_parquet(stream: BinaryIO | HashingFile, clips: Sequence[TokenSet], run: dict[str, Any], dim: int) -> None:
    """Write one shard; equal clips give equal bytes.

    Args:
        stream: Where it is written.
        clips: Rows, in order.
        run: run.json's content, carried in the file's metadata under the key `vtm`.
        dim: Channels of a token.
    """
    columns = schema(dim).with_metadata({METADATA_KEY: json.dumps(run, sort_keys=True).encode()})
    plain = [name for name in columns.names if name not in PAYLOAD]
    writer = pq.ParquetWriter(
        stream,
        columns,
        compression={name: "none" if name in PAYLOAD else "zstd" for name in columns.names},
        use_dictionary=False,
        write_statistics=[
            n for n in plain if n not in ("frame_time_ns", "grid_thw", "tokens_shape", "pooled", "embedding")
        ],
    )
    with writer:
        for group in _row_groups(clips):
            writer.write_table(pa.Table.from_pylist([row_of(clip) for clip in group], schema=columns))


def _row_groups(clips: Sequence[TokenSet]) -> list[list[TokenSet]]:
    groups: list[list[TokenSet]] = []
    room = 0
    for clip in clips:
        if clip.tokens.nbytes > room or not groups:
            groups.append([])
            room = ROW_GROUP_BYTES
        groups[-1].append(clip)
        room -= clip.tokens.nbytes
    return groups
