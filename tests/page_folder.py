"""A folder as the pages assume it: videos, pictures, labels, an encoder, recipes, and runs of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from tests.pages import ROOT
from tests.pipeline.runs import run, some_videos, tiny_recipe
from tests.synthetic import make_video

COLOURS = {"leaves": (40, 180, 60), "sea": (30, 60, 200), "street": (120, 110, 110)}
SPLITS = {"film": "train", "sea": "train", "street": "val", "leaves": "test"}


def make_page_folder(folder: Path, encoder: Path) -> Path:
    random = np.random.default_rng(3)
    (folder / "vit-s14").symlink_to(encoder)
    (folder / "jobs").mkdir()
    (folder / "jobs" / "recipes").symlink_to(ROOT / "jobs" / "recipes")
    _pictures(folder, random)
    _film_of_shots(folder, random)
    (folder / "videos").mkdir()
    for number, name in enumerate(SPLITS):  # of different lengths: equal files would be one video
        make_video(folder / "videos" / f"{name}.mp4", frames=130 if name == "film" else 30 + number)
    rows = [f"{name}.mp4,{'moving' if name in ('film', 'leaves') else 'still'},{part}" for name, part in SPLITS.items()]
    (folder / "labels.csv").write_text("\n".join(["video_id,label,split", *rows]))
    videos = [*some_videos(folder), folder / "videos" / "film.mp4"]
    run(videos, folder / "out", tiny_recipe(encoder, strategy="tree", keep=0.5), format=("parquet", "webdataset"))
    return folder


def _pictures(folder: Path, random: Generator) -> None:
    """Pictures of one colour each, listed with labels in `scenes.csv`, and one to search for."""
    rows = ["path,part,label"]
    for number, (label, colour) in enumerate([*COLOURS.items()] * 5):
        pixels = np.clip(np.asarray(colour) + random.integers(-25, 25, (40, 60, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg", quality=95)
        rows.append(f"{number}.jpg,{'gallery' if number < 9 else 'query'},{label}")
    (folder / "scenes.csv").write_text("\n".join(rows))
    for copy in ("photo.jpg", "another.jpg"):
        (folder / copy).write_bytes((folder / "4.jpg").read_bytes())


def _film_of_shots(folder: Path, random: Generator) -> None:
    """`film.mp4`, a colour a shot, and `shots.csv`."""
    firsts = np.unique(random.integers(4, 230, 29))
    colours = random.integers(20, 230, (len(firsts) + 1, 3))
    shots = np.searchsorted(firsts, np.arange(240), side="right")
    frames = [np.broadcast_to(colours[shot], (48, 80, 3)).astype(np.uint8) for shot in shots]
    make_video(folder / "film.mp4", frames=frames, fps=10)
    (folder / "shots.csv").write_text("start_s\n0.0\n" + "\n".join(f"{first / 10}" for first in firsts))
