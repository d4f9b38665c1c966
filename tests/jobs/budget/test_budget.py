"""`vtm budget VIDEO... --encoder`: figures that a run of each setting has too."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.budget.measure import BudgetRow, cheapest
from jobs.budget.neighbours import agreement, nearest_frames
from jobs.cli import main
from pipeline import TokenCache
from tests.pipeline.runs import run, some_videos, tiny_recipe

SMALL = ("--fps", "2", "--clip-frames", "3")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def measured(videos: list[Path], tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """All clips of two videos, and the plot."""
    folder = tmp_path_factory.mktemp("budget")
    arguments = ["budget", *map(str, videos[:2]), "--encoder", str(tiny_encoder), *SMALL, "--clips", "99"]
    arguments += ["--keep", "0.5", "0.2", "--reach", "0.9", "--plot", str(folder / "plot.svg"), "--json"]
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda text, **_: lines.append(text))
        assert main(arguments) == 0
    return json.loads("".join(lines)), folder / "plot.svg"


def test_every_strategy_at_every_share_and_the_tree_at_the_wanted_fidelity(measured: tuple[Any, Path]) -> None:
    facts, _ = measured
    assert (facts["videos"], facts["clips"]) == (2, 10)
    names = [row["options"] for row in facts["rows"]]
    assert len(names) == 7 * 2 + 1
    assert names[-1] == "--strategy tree --fidelity 0.9"
    for row in facts["rows"]:
        assert row["p5_cosine"] < row["mean_cosine"] <= 1
        assert 0 <= row["neighbour_agreement"] <= 1
        assert row["total_s_per_hour"] > row["merge_s_per_hour"] > 0


@pytest.mark.parametrize("strategy", ["naive", "motion", "saliency", "tree"])
def test_a_run_has_the_same_figures(
    strategy: str, measured: tuple[Any, Path], videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    (row,) = [r for r in measured[0]["rows"] if (r["strategy"], r["keep"]) == (strategy, 0.5)]
    recipe = tiny_recipe(tiny_encoder, strategy=strategy, keep=0.5, compute_dtype="auto", batch_frames=20)
    run(videos[:2], tmp_path / "out", recipe)
    cache = TokenCache(tmp_path / "out")
    patches = [len(clip.group) for clip in cache]
    fidelity = np.average([clip.fidelity for clip in cache], weights=patches)
    assert row["mean_cosine"] == pytest.approx(fidelity, abs=2e-4)
    assert row["tokens_per_clip"] == np.mean([len(clip.tokens) for clip in cache])
    payload = sum(_payload_bytes(cache.token_set(i)) for i in range(len(cache)))
    assert row["bytes_per_hour"] * measured[0]["video_s"] / 3600 == pytest.approx(payload, rel=1e-9)


def _payload_bytes(clip: Any) -> int:
    arrays = (clip.tokens, clip.sizes, clip.centers, clip.group, clip.parent, clip.loss, clip.pooled)
    return sum(array.nbytes for array in arrays if array is not None)


def test_the_cheapest_is_the_one_of_fewest_bytes(measured: tuple[Any, Path]) -> None:
    facts, _ = measured
    enough = [row for row in facts["rows"] if row["mean_cosine"] >= 0.9]
    assert enough
    assert facts["cheapest"]["bytes_per_hour"] == min(row["bytes_per_hour"] for row in enough)
    assert cheapest([BudgetRow(**row) for row in facts["rows"]], 0.99999) is None


def test_the_plot_shows_every_figure(measured: tuple[Any, Path]) -> None:
    facts, path = measured
    root = ET.parse(path).getroot()
    titles = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]
    for row in facts["rows"]:
        assert any(title.startswith(f"{row['options']}: {row['mean_cosine']:.4f}") for title in titles)
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.attrib["cx"]) <= 860
        assert 0 <= float(circle.attrib["cy"]) <= 520


def test_neighbours_are_looked_for_away_from_the_frame() -> None:
    angle_F = torch.tensor([0.0, 0.01, 0.9, 0.02, 1.0])
    frames_FD = torch.stack([angle_F.cos(), angle_F.sin()], dim=1)
    video_F, time_F = np.array([0, 0, 0, 0, 1]), np.array([0.0, 1.0, 2.0, 30.0, 0.0])
    nearest_F = nearest_frames(frames_FD, video_F, time_F)
    assert nearest_F.tolist() == [3, 3, 4, 1, 2], "frame 1 is nearest to frame 0, and one second from it"
    assert agreement(nearest_F, np.array([3, 3, 4, 0, 1]), video_F, time_F) == 1.0
    assert agreement(nearest_F, np.array([3, 4, 4, 1, 2]), video_F, time_F) == 0.8
    alone_F = nearest_frames(frames_FD[:2], video_F[:2], time_F[:2])
    assert alone_F.tolist() == [-1, -1]
    assert agreement(alone_F, alone_F, video_F[:2], time_F[:2]) is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["film.mp4", "--reach", "0.9"], "--reach is for videos: name --encoder"),
        (["a.mp4", "b.mp4"], "several inputs are for videos"),
        (["gone.mp4", "--encoder", "ENCODER"], "gone.mp4: no such file or folder"),
        (["broken.mp4", "--encoder", "ENCODER"], "broken.mp4: Invalid data"),
        (["broken.mp4", "gone.mp4", "--encoder", "ENCODER"], "(and 1 more that cannot be read)"),
        (["broken.mp4", "--encoder", "ENCODER", "--strategy", "magic"], "--strategy magic cannot be compared"),
        (["broken.mp4", "--encoder", "ENCODER", "--keep", "0"], "--keep 0.0 must be above 0"),
        (["broken.mp4", "--encoder", "ENCODER", "--reach", "2"], "--reach 2.0 must be above 0"),
        (["broken.mp4", "--encoder", "ENCODER", "--clips", "0"], "--clips 0 must be 1 or more"),
        (["broken.mp4", "--encoder", "ENCODER", "--plot", "a.gif"], "--plot a.gif must end in .svg"),
        (["broken.mp4", "--encoder", "ENCODER", "--tokens", "9"], "--tokens is of a run folder"),
        (["broken.mp4", "--encoder", "nowhere"], "nowhere"),
    ],
)
def test_bad_usage(
    arguments: list[str],
    expected: str,
    tiny_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert main(["budget", *[str(tiny_encoder) if text == "ENCODER" else text for text in arguments]]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vtm: ")]
    assert len(lines) == 1
    assert expected in lines[0]


def test_a_video_that_cannot_be_read_is_told_of_and_the_others_are_measured(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    arguments = [str(tmp_path / "broken.mp4"), str(videos[2]), "--encoder", str(tiny_encoder), *SMALL]
    assert main(["budget", *arguments, "--keep", "0.2", "--strategy", "naive", "--reach", "0.9999"]) == 3
    captured = capsys.readouterr()
    assert "broken.mp4" in captured.err
    assert "no setting reaches 0.9999: the best, --strategy naive --keep 0.2" in captured.out
