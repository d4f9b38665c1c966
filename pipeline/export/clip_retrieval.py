"""clip-retrieval: `img_emb/img_emb_N.npy` and `metadata/metadata_N.parquet`, one vector a clip.

The reader is rom1504/clip-retrieval @b055335 (`clip_index.py` by way of autofaiss, and `clip_back.py`). It reads what
its `clip_inference/writer.py` writes: partitions of float16 vectors, and a table of as many rows with `image_path`. The
vector is the image embedding where the encoder has one, which a text tower can be compared with, else the mean of the
clip's tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.cache.token_cache import TokenCache
from pipeline.export.target import Exported, ExportOptions, new_file

TAKES = ()
PARTITION_ROWS = 1 << 16
METADATA = pa.schema(
    [
        ("image_path", pa.string()),
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
    ]
)


def export(cache: TokenCache, folder: Path, options: ExportOptions, partition_rows: int = PARTITION_ROWS) -> Exported:
    """Write partitions of clips, in order of video and time."""
    digits = len(str(-(-len(cache) // partition_rows) - 1))
    kinds = set()
    for number, first in enumerate(range(0, len(cache), partition_rows)):
        positions = range(first, min(first + partition_rows, len(cache)))
        vectors, rows = [], list[dict[str, Any]]()
        for clip in cache.read(positions, ("pooled", "embedding")):
            kinds.add("pooled" if clip.embedding is None else "embedding")
            vectors.append(clip.pooled if clip.embedding is None else clip.embedding)
            seconds = {"start_s": clip.start_ns / 1e9, "end_s": clip.end_ns / 1e9}
            rows.append({"image_path": clip.uri, "clip_id": clip.clip_id, "video_id": clip.video_id} | seconds)
        with new_file(folder / "img_emb", f"img_emb_{number:0{digits}d}.npy") as stream:
            np.save(stream, np.stack(vectors).astype(np.float16), allow_pickle=False)
        with new_file(folder / "metadata", f"metadata_{number:0{digits}d}.parquet") as stream:
            pq.write_table(pa.Table.from_pylist(rows, schema=METADATA), stream)
    notes = (f"vectors are the column {' and '.join(sorted(kinds))}; several clips of a video share its image_path",)
    return Exported(format="clip-retrieval", items=-(-len(cache) // partition_rows), rows=len(cache), notes=notes)
