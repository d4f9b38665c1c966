"""The bench's rows from clips that are kept in a file, and the tokens that it makes of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jobs.bench import learning as bench_learning
from jobs.bench.planted import PlantedLayout
from jobs.bench.planted_tokens import token_encoder
from tests.jobs.bench.command import bench
from vtm import load_encoder

LAYOUT = PlantedLayout(frames=8, side=4)
CHANNELS, CLASSES = 6, 3
ROUNDING = 1e-5


def clips(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Noise with one planted square a clip, whose channel is the class and whose motion is high."""
    generator = torch.Generator().manual_seed(seed)
    frames, rows, columns = LAYOUT.grid
    patches = 0.1 * torch.randn(count, frames, rows, columns, CHANNELS, generator=generator)
    target = torch.arange(count) % CLASSES
    planted = torch.zeros(count, frames, rows, columns, dtype=torch.bool)
    for index in range(count):
        place = (index, index % frames, slice(0, 2), slice(1, 3))
        planted[place] = True
        patches[place][..., target[index]] += 3
    motion = 0.5 + 4 * planted.float()
    return {
        "patches": patches.flatten(1, 3).half(),
        "motion": motion.flatten(1),
        "saliency": planted.float().flatten(1),
        "planted": planted.flatten(1),
        "target": target,
    }


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bench_learning, "PlantedLayout", lambda: LAYOUT)
    kept = {"train": clips(33, 1), "test": clips(7, 2)}
    path = tmp_path / "clips.safetensors"
    save_file({f"{split}.{name}": value for split in kept for name, value in kept[split].items()}, path)
    return path


def report(capsys: pytest.CaptureFixture[str], tokens: Path, *more: str) -> dict[str, Any]:
    unread = ["--encoder", "nowhere", "--scenes", "nowhere", "--videos", "nowhere"]
    fixed = [*unread, "--encoded", str(tokens), "--epochs", "1", "--windows", "2", "4", "8"]
    return bench(capsys, "learning", *fixed, *more)


def test_rows_are_the_strategies_over_all_seeds(capsys: pytest.CaptureFixture[str], tokens: Path) -> None:
    facts = report(capsys, tokens, "--seeds", "2", "--strategy", "none", "naive", "motion")
    assert [row["name"] for row in facts["rows"]] == ["baseline", "naive", "motion"]
    assert [(run["strategy"], run["seed"]) for run in facts["runs"]] == [
        (strategy, seed) for strategy in ("none", "naive", "motion") for seed in (0, 1)
    ]
    by_name = {row["name"]: row for row in facts["rows"]}
    # 4 of 128 tokens are planted. A stride hits them by chance, motion of 4 above the rest nearly always.
    assert by_name["naive"]["times_chance"] == pytest.approx(by_name["naive"]["planted_target_share"] / (4 / 128))
    assert by_name["motion"]["times_chance"] > 4 > by_name["naive"]["times_chance"]


def test_a_row_is_of_all_its_seeds() -> None:
    runs = [
        {"accuracy": accuracy, "planted_target_share": share, "times_chance": 2 * share}
        for accuracy, share in ((0.5, 0.25), (0.75, 0.5), (0.25, 0.0))
    ]
    assert bench_learning.summary_of("naive", runs) == {
        "name": "naive",
        "accuracy_mean": 0.5,
        "accuracy_min": 0.25,
        "accuracy_max": 0.75,
        "planted_target_share": 0.25,
        "times_chance": 0.5,
    }
    assert bench_learning.summary_of("none", [{"accuracy": 1.0}]).keys() == {
        "name",
        "accuracy_mean",
        "accuracy_min",
        "accuracy_max",
    }


def test_saliency_can_take_the_place_of_motion(capsys: pytest.CaptureFixture[str], tokens: Path) -> None:
    fixed = ("--seeds", "1", "--strategy", "motion")
    (drawn,) = report(capsys, tokens, *fixed, "--saliency-cue", "4")["rows"]
    (evenly,) = report(capsys, tokens, *fixed, "--saliency-cue", "0")["rows"]
    assert drawn["times_chance"] > 4 > evenly["times_chance"]


def test_a_run_is_repeatable(capsys: pytest.CaptureFixture[str], tokens: Path) -> None:
    first, again = (report(capsys, tokens, "--seeds", "1", "--strategy", "learnable")["runs"] for _ in range(2))
    assert first == again


def test_tokens_are_the_encoders_patches_averaged(tiny_encoder: Path) -> None:
    encoder = load_encoder(tiny_encoder, layer=2)
    layout = PlantedLayout(side=3, token_px=14)
    frames = np.random.default_rng(0).integers(0, 256, (2, 42, 42, 3), dtype=np.uint8)
    tokens_TNC, saliency_TN = token_encoder(encoder, layout)(frames)
    assert tokens_TNC.shape == (2, 9, 24)
    assert saliency_TN.shape == (2, 9)
    # Four patches to a token; with no cls or prefix left out, the attention on all patches is at most 1.
    assert 0 < float(4 * saliency_TN.sum(dim=1).max()) <= 1 + ROUNDING
    alone_NC = token_encoder(encoder, PlantedLayout(side=6, token_px=7))(frames[1:]).patches[0]
    by_place = alone_NC.view(6, 6, 24)
    for row in range(3):
        for column in range(3):
            mean_C = by_place[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(dim=(0, 1))
            torch.testing.assert_close(tokens_TNC[1, 3 * row + column], mean_C, rtol=0, atol=ROUNDING)
