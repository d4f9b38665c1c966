"""ActionFormer, TriDet and OpenTAD: `{video}.npy` (T, C), and the annotations' skeleton that names it.

The reader is `THUMOS14Dataset.__getitem__` of happyharrycn/actionformer_release (libs/datasets/thumos14.py, @61ea7eb):
`np.load(file).astype(float32)`, rows at `seconds * fps / feat_stride - 0.5 * num_frames / feat_stride`. Row i is the
window from i to i + 1 steps, so feat_stride = num_frames = step_s * fps; `dataset.json` says so with fps = 1 / step_s,
for which both are 1. TriDet (@764b816) and OpenTAD's `LoadFeats` (@3dd7b03) read the same files.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.cache.token_cache import TokenCache
from pipeline.counted import counted
from pipeline.export.moment_detr import COLUMNS
from pipeline.export.target import Exported, ExportOptions, new_file, video_names
from pipeline.export.time_grid import time_grid

STEP_S = 1.0
MAX_SEQ_LEN = 2304
"""Of its configurations: rows beyond are cropped while training."""
TAKES = ("step_s", "name_by")


def export(cache: TokenCache, folder: Path, options: ExportOptions) -> Exported:
    """Write every video, and dataset.json."""
    step_s = options.step_s or STEP_S
    names = video_names(cache, options.name_by)
    database, rows, filled, longest = {}, 0, 0, 0
    for video_id, view in cache.videos.items():
        grid = time_grid(cache.read(view.positions, COLUMNS), step_s)
        with new_file(folder, f"{names[video_id]}.npy") as stream:
            np.save(stream, grid.rows, allow_pickle=False)
        duration_s = len(grid.rows) * step_s
        about = {"subset": "Test", "duration": duration_s, "fps": 1 / step_s, "annotations": []}
        database[names[video_id]] = about
        rows, filled, longest = rows + len(grid.rows), filled + grid.filled, max(longest, len(grid.rows))
    with new_file(folder, "dataset.json") as stream:
        stream.write(json.dumps({"version": "1", "database": database}, indent=1).encode())
    notes = [f"one row every {step_s:g} s: fps {1 / step_s:g}, feat_stride 1, num_frames 1; add your own annotations"]
    if longest > MAX_SEQ_LEN:
        notes.append(f"the longest video has {longest} rows, above max_seq_len {MAX_SEQ_LEN}: raise it, or --step-s")
    if filled:
        notes.append(f"{counted(filled, 'row')} without a frame got the one on display: take a larger --step-s")
    return Exported(format="actionformer", items=len(database), rows=rows, notes=tuple(notes))
