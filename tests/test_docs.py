"""What the pages under docs/ show as Python is run as it stands there, on small data."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.runs import run, tiny_recipe
from tests.synthetic import make_video

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLOURS = {"leaves": (40, 180, 60), "sea": (30, 60, 200), "street": (120, 110, 110)}


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def folder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`out/scenes`, pictures of one colour each, and `out/demo`, a film of shots that are listed in `shots.csv`."""
    folder = tmp_path_factory.mktemp("docs")
    random = np.random.default_rng(3)
    rows = ["path,part,label"]
    for number, (label, colour) in enumerate([*COLOURS.items()] * 5):
        pixels = np.clip(np.asarray(colour) + random.integers(-25, 25, (40, 60, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg", quality=95)
        rows.append(f"{number}.jpg,{'gallery' if number < 9 else 'query'},{label}")
    (folder / "scenes.csv").write_text("\n".join(rows))
    run([folder / "scenes.csv"], folder / "out" / "scenes", tiny_recipe(tiny_encoder, strategy="tree", clip_frames=1))
    firsts = np.unique(random.integers(4, 230, 29))
    colours = random.integers(20, 230, (len(firsts) + 1, 3))
    shots = np.searchsorted(firsts, np.arange(240), side="right")
    frames = [np.broadcast_to(colours[shot], (48, 80, 3)).astype(np.uint8) for shot in shots]
    make_video(folder / "film.mp4", frames=frames, fps=10)
    (folder / "shots.csv").write_text("start_s\n0.0\n" + "\n".join(f"{first / 10}" for first in firsts))
    run([folder / "film.mp4"], folder / "out" / "demo", tiny_recipe(tiny_encoder, strategy="tree", clip_frames=11))
    return folder


def test_two_models_train(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    for code in blocks("train-on-a-cache.md"):
        exec(compile(code, "train-on-a-cache.md", "exec"), {})
    scenes, shots = capsys.readouterr().out.strip().splitlines()
    accuracy, num_pictures = re.findall(r"[\d.]+", scenes)[:2]
    assert int(num_pictures) == 6
    assert float(accuracy) > 0.8, scenes
    found, _, chance = map(float, re.findall(r"\d\.\d+", shots))
    assert found > chance + 0.2, shots


def test_the_search_page_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "photo.jpg").write_bytes((folder / "4.jpg").read_bytes())
    (code,) = blocks("search.md")
    exec(compile(code, "search.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_pages_name_no_commands_that_are_not_there() -> None:
    from jobs.cli import COMMANDS

    for page in ("search.md", "choose-a-budget.md", "train-on-a-cache.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        assert set(re.findall(r"^    vtm (\w+)", text, re.M)) <= COMMANDS.keys(), page
