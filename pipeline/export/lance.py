"""LanceDB: a table `clips`, a row a clip: its tokens as a multivector, and one pooled vector.

The reader is lancedb: `table.search(query_tokens, vector_column_name="tokens").distance_type("cosine")` gives
`_distance` = query tokens - MaxSim; `vector_column_name="pooled"` searches one vector a clip. Needs the extra `lance`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.cache.cached_clip import CachedClip
from pipeline.cache.token_cache import TokenCache
from pipeline.errors import SettingsError
from pipeline.export.target import Exported, ExportOptions

TAKES = ("collection",)
COLUMNS = ("tokens", "sizes", "pooled")
BATCH_BYTES = 16 << 20


def export(cache: TokenCache, folder: Path, options: ExportOptions) -> Exported:
    """Write the table, batch by batch.

    Raises:
        SettingsError: lancedb is not installed.
    """
    try:
        import lancedb
    except ImportError as error:
        raise SettingsError(f"lance needs lancedb ({error}): pip install 'vtm-pipeline[lance]'") from error
    schema = table_schema(int(cache.run["encoder"]["dim"]))
    rows = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for clips in in_batches(cache, COLUMNS):
            rows += sum(len(clip.tokens) for clip in clips)
            yield record_batch(clips, schema)

    reader = pa.RecordBatchReader.from_batches(schema, batches())
    lancedb.connect(folder).create_table(options.collection, data=reader, schema=schema)
    notes = ("search by cosine; an index is yours to make beyond 100,000 clips (table.create_index)",)
    return Exported(format="lance", items=len(cache), rows=rows, notes=notes)


def in_batches(cache: TokenCache, columns: tuple[str, ...]) -> Iterator[list[CachedClip]]:
    """All clips, in lists of at most `BATCH_BYTES` of tokens, or of one clip."""
    held: list[CachedClip] = []
    size_bytes = 0
    for clip in cache.read(range(len(cache)), columns):
        if held and size_bytes + clip.tokens.nbytes > BATCH_BYTES:
            yield held
            held, size_bytes = [], 0
        held.append(clip)
        size_bytes += clip.tokens.nbytes
    if held:
        yield held


def table_schema(dim: int) -> pa.Schema:
    """The columns, of D = dim channels."""
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("video_id", pa.string()),
            ("uri", pa.string()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("tokens", pa.list_(pa.list_(pa.float16(), dim))),
            ("sizes", pa.list_(pa.int32())),
            ("pooled", pa.list_(pa.float32(), dim)),
        ]
    )


def record_batch(clips: list[CachedClip], schema: pa.Schema) -> pa.RecordBatch:
    """Clips as rows."""
    dim = schema.field("pooled").type.list_size
    tokens = np.concatenate([clip.tokens for clip in clips]).astype(np.float16)
    ends = np.cumsum([0, *(len(clip.tokens) for clip in clips)]).astype(np.int32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(tokens.reshape(-1)), dim)
    pooled = pa.array(np.concatenate([clip.pooled for clip in clips]))
    columns = [
        pa.array([clip.clip_id for clip in clips]),
        pa.array([clip.video_id for clip in clips]),
        pa.array([clip.uri for clip in clips]),
        pa.array([clip.start_ns / 1e9 for clip in clips]),
        pa.array([clip.end_ns / 1e9 for clip in clips]),
        pa.ListArray.from_arrays(ends, vectors),
        pa.ListArray.from_arrays(ends, pa.array(np.concatenate([clip.sizes for clip in clips]))),
        pa.FixedSizeListArray.from_arrays(pooled, dim),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
