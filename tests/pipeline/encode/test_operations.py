"""How much a GPU is asked to do for a clip after its encoder: figures that may not grow.

Each operator costs a GPU some microseconds to launch, whatever its size. Measured on `meta`, where shapes are all there
is: the values that a GPU's path would wait for are not there to be read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.encode.clip_arrays import arrays_of
from pipeline.encode.features import VitFeatures
from tests.operations import operations_of, replay_as_on_a_gpu
from tests.vtm.encoders.random_checkpoints import FAMILIES, write_checkpoint
from vtm import agglomeration, growing, merge_plan, merge_tree
from vtm.encoders import load_encoder

GRID = (60, 16, 16)
TOKENS = 60 * 16 * 16
LEFT = 1536


@pytest.fixture(autouse=True)
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (agglomeration, growing):
        monkeypatch.setattr(module, "is_complete", lambda flag: True)


@pytest.fixture
def features() -> torch.Tensor:
    return torch.empty(1, TOKENS, 384, device="meta")


def test_a_tree_and_its_cut(features: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = operations_of(lambda: merge_tree(features, grid=GRID).coarsen(num_tokens=LEFT))
    assert launched < 8000
    replay_as_on_a_gpu(monkeypatch)
    assert operations_of(lambda: merge_tree(features, grid=GRID).coarsen(num_tokens=LEFT)) < 120


@pytest.mark.parametrize(("encoder_keep", "most"), [(1.0, 110), (0.5, 300)])
def test_a_batch_of_frames(encoder_keep: float, most: int, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks; launched one by one, twelve take six times as many."""
    encoder = load_encoder(tiny_encoder, device="meta", encoder_keep=encoder_keep)
    frames = np.zeros((3, 21, 35, 3), np.uint8)
    assert operations_of(lambda: VitFeatures(encoder, 3)(frames)) < most
    replay_as_on_a_gpu(monkeypatch)
    assert operations_of(lambda: VitFeatures(encoder, 3)(frames)) < 20


@pytest.mark.parametrize(("strategy", "most"), [("naive", 32), ("motion", 60), ("coverage", 200)])
def test_plans(strategy: str, most: int, features: torch.Tensor) -> None:
    scores = features[..., 0]
    assert (
        operations_of(
            lambda: merge_plan(features, strategy=strategy, grid=GRID, keep=0.1, motion=scores, saliency=scores)
        )
        < most
    )


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_what_follows_the_merge(dtype: str, features: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = merge_plan(features, strategy="naive", grid=GRID, keep=0.1)
    assert operations_of(lambda: arrays_of(features, plan, dtype)) < 60
    replay_as_on_a_gpu(monkeypatch)
    assert operations_of(lambda: arrays_of(features, plan, dtype)) < 20


@pytest.mark.parametrize("encoder_keep", [1.0, 0.6])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_of_a_batch_reads_nothing_of_the_host(
    family: str, encoder_keep: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(write_checkpoint(family, tmp_path), device="meta", encoder_keep=encoder_keep)
    image = encoder.image
    replay_as_on_a_gpu(monkeypatch)
    VitFeatures(encoder, 2)(np.zeros((3, image.crop_height_px, image.crop_width_px, 3), np.uint8), saliency=True)
