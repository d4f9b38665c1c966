"""`vtm bench search` measures search, not something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from jobs.bench.search_clips import search_many
from jobs.bench.search_pictures import label_pictures


def test_pictures_of_one_colour_find_their_label(tiny_encoder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for part, count in (("gallery", 5), ("query", 3)):
        for label, colour in (("red", (200, 30, 30)), ("green", (20, 190, 40)), ("blue", (10, 60, 210))):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(np.asarray(colour) + random.integers(-20, 20, (40, 60, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / part / label / f"{number}.png")
    rows = label_pictures(tmp_path, str(tiny_encoder), layer=-1, keep=0.2)
    assert {(row["name"], row["half"]) for row in rows} == {
        (f"pictures, by {rank}", half) for rank in ("pooled", "tokens") for half in ("chosen on", "held out")
    }
    assert sum(row["queries"] for row in rows) == 2 * 9
    for row in rows:
        assert row["nearest_share"] == row["five_nearest_share"] == 1


def test_made_up_clips_are_found_by_their_frames() -> None:
    """67 clips, in two shards."""
    row = search_many(67, num_tokens=11, dim=7, seed=0)
    assert (row["clips"], row["queries"], row["right_clip"]) == (67, 11, 11)
