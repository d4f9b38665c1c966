"""From frames to numbers on their way to the host, a GPU is never waited for, and no two devices mix.

On `meta` tensors have shapes and no values, so that whatever reads a value fails, and so does an operator that is given
tensors of two devices. On a GPU the same is asked of torch itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.encode.clip_encoder import ClipEncoder
from pipeline.encode.describe import describe_encoder
from pipeline.encode.devices import Device
from pipeline.settings import STRATEGIES, Recipe
from pipeline.values import ClipSpec, DecodedClip
from tests.vtm.encoders.random_checkpoints import FAMILIES, write_checkpoint
from tests.vtm.test_no_waiting import no_waiting
from vtm import agglomeration, growing
from vtm.network import NetworkConfig, VideoTokenMerging, save_model

FRAMES = 5
SPEC = ClipSpec(
    video_id="ab" * 16, index=0, start_ns=0, end_ns=5, frame_pts=(0, 1, 2, 3, 4), frame_instants=(1, 1, 1, 1, 1)
)
DEVICES = ["meta", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "cuda":
        request.getfixturevalue("cuda")
    # The one value of a tree that is waited for.
    for module in (agglomeration, growing):
        monkeypatch.setattr(module, "is_complete", lambda flag: True)
    return str(request.param)


def launch(folder: Path, device: str, **settings: Any) -> int:
    """Launch a clip; the number of tokens it becomes."""
    recipe = Recipe(encoder=str(folder), compute_dtype="float32", clip_frames=FRAMES, **settings)
    description, picture = describe_encoder(recipe, Device(kind="cpu"))
    encoder = ClipEncoder(recipe, description, device)
    frames = np.zeros((FRAMES, picture.crop_height_px, picture.crop_width_px, 3), np.uint8)
    clip = DecodedClip(
        spec=SPEC,
        frames=frames,
        frame_time_ns=np.arange(FRAMES),
        damaged_frames=0,
        motion=np.ones((FRAMES, *picture.grid_hw), np.float32),
    )
    if device == "cuda":
        encoder.encode(clip, "warm.mp4")
    with no_waiting(device):
        launched = encoder.launch(clip)
    assert launched.grid == (FRAMES, *picture.grid_hw)
    return len(launched.numbers.arrays.sizes_M)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, device: str, tmp_path: Path) -> None:
    assert launch(write_checkpoint(family, tmp_path), device, keep=0.2) == 25


ON_THE_GRID = ("center", "boundary", "motion")


@pytest.mark.parametrize(
    ("strategy", "encoder_keep"),
    [(name, 1.0) for name in STRATEGIES if name != "learnable"]
    + [(name, 0.6) for name in STRATEGIES if name not in ("learnable", *ON_THE_GRID)],
)
def test_every_strategy(strategy: str, encoder_keep: float, device: str, tiny_encoder: Path) -> None:
    amount = {} if strategy == "none" else {"tokens_per_clip": 7}
    left = {1.0: 75, 0.6: 45}[encoder_keep] if strategy == "none" else 7
    assert launch(tiny_encoder, device, strategy=strategy, encoder_keep=encoder_keep, **amount) == left


@pytest.mark.parametrize("weights", ["saliency", "motion"])
@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_weights_and_dtypes(weights: str, dtype: str, device: str, tiny_encoder: Path) -> None:
    assert launch(tiny_encoder, device, weights=weights, dtype=dtype, tokens_per_clip=7) == 7


@pytest.mark.parametrize("strategy", ["learnable", "motion", "weighted"])
def test_networks(strategy: Any, device: str, tiny_encoder: Path, tmp_path: Path) -> None:
    config = NetworkConfig(
        in_width=24, outputs=3, strategy=strategy, widths=(16, 10), windows_frames=(1, 3), heads=2, head_width=4
    )
    save_model(tmp_path / "network", VideoTokenMerging(config))
    assert launch(tiny_encoder, device, strategy="learnable", scorer=str(tmp_path / "network")) > 0


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["tree", "coverage", "none"])
def test_a_gpu_gives_the_same_bytes_again_and_beside_another_clip(
    strategy: str, cuda: torch.device, tiny_encoder: Path
) -> None:
    recipe = Recipe(encoder=str(tiny_encoder), compute_dtype="float32", clip_frames=FRAMES, strategy=strategy)
    description, picture = describe_encoder(recipe, Device(kind="cuda"))
    encoder = ClipEncoder(recipe, description, str(cuda))
    rng = np.random.default_rng(3)
    shape = (FRAMES, picture.crop_height_px, picture.crop_width_px, 3)
    clips = [
        DecodedClip(
            spec=SPEC,
            frames=rng.integers(0, 256, shape, dtype=np.uint8),
            frame_time_ns=np.arange(FRAMES),
            damaged_frames=0,
        )
        for _ in range(2)
    ]
    # The first call runs the kernels one by one, the third replays a graph of them.
    alone = [encoder.encode(clip, "a.mp4") for clip in (*clips, *clips)]
    launched = [encoder.launch(clip) for clip in clips]
    beside = [encoder.finish(one, "a.mp4") for one in launched]
    for first, again, together in zip(alone[:2], alone[2:], beside, strict=True):
        for name in ("tokens", "sizes", "group", "pooled"):
            assert np.array_equal(getattr(first, name), getattr(again, name)), name
            assert np.array_equal(getattr(first, name), getattr(together, name)), name
