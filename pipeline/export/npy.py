"""Plain numpy: `{clip}.npy` (M, D), and beside it sizes, centres and times, for readers of one array a file.

VTimeLLM (huangb23/VTimeLLM @c34ae56) reads `{id}.npy` (N, D); LLaVA-type trainers read the like with a few lines.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.cache.token_cache import TokenCache
from pipeline.export.target import Exported, ExportOptions, new_file, safe_name, video_names, write_index

TAKES = ("spread", "name_by")
COLUMNS = ("tokens", "sizes", "centers", "group", "frame_time_ns")


def export(cache: TokenCache, folder: Path, options: ExportOptions) -> Exported:
    """Write every clip: tokens, or with `spread` one row a source patch."""
    names = video_names(cache, options.name_by)
    index, rows = [], 0
    for clip in cache.read(range(len(cache)), COLUMNS):
        name = safe_name(f"{names[clip.video_id]}-{clip.clip_index:06d}")
        arrays = {"": clip.unmerged() if options.spread else clip.tokens}
        if not options.spread:
            arrays |= {".sizes": clip.sizes, ".centers": clip.centers, ".time_s": clip.time_ns / 1e9}
        for suffix, array in arrays.items():
            with new_file(folder, f"{name}{suffix}.npy") as stream:
                np.save(stream, array, allow_pickle=False)
        rows += len(arrays[""])
        index.append({"name": name, "clip_id": clip.clip_id, "uri": clip.uri, "grid_thw": list(clip.grid_thw)})
    write_index(folder, index)
    return Exported(format="npy", items=len(index), rows=rows)
