"""Moment-DETR and Lighthouse: `{video}_{start}_{end}.npz`, one unit vector every two seconds.

The reader is `StartEndDataset._get_video_feat_by_vid` of jayleicn/moment_detr (moment_detr/start_end_dataset.py,
@0f5badb): `np.load(f"{vid}.npz")["features"][:max_v_l]`, max_v_l = 75 rows of clip_len = 2 s, rows made unit vectors.
What is beyond 75 rows would be left out without a word, so a video is cut into pieces of 150 s, named as those of
QVHighlights are: `{vid}_{start_s}_{end_s}`. Lighthouse (@d095eaa) reads the same files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.cache.token_cache import TokenCache
from pipeline.counted import counted
from pipeline.export.target import Exported, ExportOptions, new_file, video_names, write_index
from pipeline.export.time_grid import time_grid, unit_rows

STEP_S = 2.0
MOST_ROWS = 75
COLUMNS = ("tokens", "group", "frame_time_ns")
TAKES = ("step_s", "name_by")


def export(cache: TokenCache, folder: Path, options: ExportOptions) -> Exported:
    """Write every video's pieces."""
    step_s = options.step_s or STEP_S
    names = video_names(cache, options.name_by)
    index, rows, filled = [], 0, 0
    for video_id, view in cache.videos.items():
        grid = time_grid(cache.read(view.positions, COLUMNS), step_s)
        filled += grid.filled
        for first in range(0, len(grid.rows), MOST_ROWS):
            piece = unit_rows(grid.rows[first : first + MOST_ROWS])
            vid = f"{names[video_id]}_{first * step_s:.1f}_{(first + len(piece)) * step_s:.1f}"
            with new_file(folder, f"{vid}.npz") as stream:
                np.savez(stream, features=piece)
            index.append({"vid": vid, "video_id": video_id, "start_s": first * step_s, "rows": len(piece)})
            rows += len(piece)
    write_index(folder, index)
    notes = [f"one row every {step_s:g} s, at most {MOST_ROWS} a file: clip_len={step_s:g}, max_v_l={MOST_ROWS}"]
    if filled:
        notes.append(f"{counted(filled, 'row')} without a frame got the one on display: take a larger --step-s")
    return Exported(format="moment-detr", items=len(index), rows=rows, notes=tuple(notes))
