"""Merging inside the encoder: what is left represents every patch, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_checkpoints import write_checkpoint

from vtm import merge_plan
from vtm.encoders import EncoderError, load_encoder
from vtm.encoders.compress import encode_merging

PATCHES = 25
"""5 x 5 of the random checkpoints."""
MERGE_TOLERANCE = 1e-6
"""The logarithm of the sizes is float32."""


@pytest.fixture(scope="module", params=["dinov2 registers", "siglip", "dinov3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(request.param, tmp_path_factory.mktemp("checkpoint"))


def random_pixels(frames: int = 3) -> torch.Tensor:
    return torch.randn(frames, 3, 35, 35, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_sizes_and_plan_cover_every_patch(folder: Path) -> None:
    out = load_encoder(folder, dtype=torch.float64, encoder_keep=0.5)(random_pixels())
    assert out.plan is not None
    assert out.sizes is not None
    assert out.patches.shape[1] == out.keys.shape[1] == out.plan.num_groups == 13
    assert out.plan.group.shape == (3, PATCHES)
    assert torch.equal(out.sizes, out.plan.sizes.float())
    assert out.sizes.sum(dim=1).tolist() == [PATCHES] * 3


@pytest.mark.parametrize("name", ["dinov2 registers", "siglip"])
def test_identical_patches_merge_without_loss(name: str, tmp_path: Path) -> None:
    """Where all patches are alike but for their place, sizes keep attention what it was only if they weigh in it."""
    vit = load_encoder(write_checkpoint(name, tmp_path), dtype=torch.float64).vit
    for table in (vit.positions, vit.grid_positions):
        if table is not None:
            table.zero_()
    patch = torch.randn(1, 3, 7, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pixels = patch.tile(1, 1, 5, 5)
    plain_BSD, _ = vit(pixels)
    merged = encode_merging(vit, pixels, (12, 6))
    num_prefix = vit.config.num_prefix
    spread = merged.plan.spread(merged.tokens[:, num_prefix:])
    assert (spread - plain_BSD[:, num_prefix:]).abs().max() < MERGE_TOLERANCE
    assert (merged.tokens[:, :num_prefix] - plain_BSD[:, :num_prefix]).abs().sum() < MERGE_TOLERANCE


def test_saliency_is_of_the_tokens_that_come_out(folder: Path) -> None:
    out = load_encoder(folder, dtype=torch.float64, encoder_keep=0.5)(random_pixels(), saliency=True)
    assert out.saliency is not None
    assert out.sizes is not None
    assert out.saliency.shape == out.sizes.shape


@pytest.mark.parametrize("keep", [0.0, 1.5, 0.05])
def test_impossible_shares_are_refused(folder: Path, keep: float) -> None:
    with pytest.raises(EncoderError, match=f"encoder_keep {keep}"):
        load_encoder(folder, encoder_keep=keep)


def test_an_image_embedding_needs_the_blocks_after_whole(folder: Path) -> None:
    assert load_encoder(folder, encoder_keep=0.5, pooled=True)(random_pixels().float()).pooled is not None
    with pytest.raises(EncoderError, match=r"encoder_keep 0\.5 ends at the output block"):
        load_encoder(folder, layer=2, encoder_keep=0.5, pooled=True)


def test_the_frames_plans_compose_with_the_clips(tmp_path: Path) -> None:
    """As docs/encoders.md has it: from the T·N patches of a clip to its tokens."""
    encoder = load_encoder(write_checkpoint("dinov2", tmp_path), encoder_keep=0.5)
    out = encoder(torch.randn(3, 3, 35, 35))
    patches = encoder.grid_hw[0] * encoder.grid_hw[1]
    left = out.plan.num_groups
    tokens, keys = out.patches.flatten(0, 1)[None], out.keys.flatten(0, 1)[None]
    later = merge_plan(keys, strategy="coverage", grid=(3, left, 1), features=tokens, keep=0.2)
    plan = out.plan.tile(3).then(later)
    assert plan.group.shape == (1, 3 * patches)
    assert plan.sizes.sum() == 3 * patches
    for frame in range(3):
        mine = plan.group[0, frame * patches : (frame + 1) * patches]
        assert torch.equal(mine, later.group[0, frame * left : (frame + 1) * left][out.plan.group[frame]])
