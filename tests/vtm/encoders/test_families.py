"""Every family's tokens, keys and image embedding equal those of `transformers`, block by block."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_checkpoints import BODY, FAMILIES, reference, write_checkpoint

from vtm.encoders import EncoderError, load_encoder

RELATIVE = {torch.float64: 1e-9, torch.float32: 1e-5}
SIZES = {"own": (35, 35), "wider": (28, 49), "overhanging": (44, 31)}


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, write_checkpoint(request.param, tmp_path_factory.mktemp("checkpoint"))


def random_pixels(dtype: torch.dtype, size: str) -> torch.Tensor:
    return torch.randn(2, 3, *SIZES[size], generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def error(got: torch.Tensor | None, expected: torch.Tensor | None) -> float:
    """Largest difference, relative to the largest value."""
    assert got is not None
    assert expected is not None
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", RELATIVE)
def test_last_block_equals_transformers(checkpoint: tuple[str, Path], dtype: torch.dtype, size: str) -> None:
    name, folder = checkpoint
    pixels = random_pixels(dtype, size)
    expected = reference(name, folder, pixels)
    out = load_encoder(folder, dtype=dtype)(pixels)
    prefix = FAMILIES[name].prefix
    assert error(out.patches, expected.last_hidden_state[:, prefix:]) < RELATIVE[dtype]
    if prefix == 0:
        assert out.cls is None
    else:
        assert error(out.cls, expected.last_hidden_state[:, 0]) < RELATIVE[dtype]
    if prefix > 1:
        assert error(out.registers, expected.last_hidden_state[:, 1:prefix]) < RELATIVE[dtype]
    else:
        assert out.registers is None
    if expected.pooled is None:
        assert out.pooled is None
    else:
        assert error(out.pooled, expected.pooled) < RELATIVE[dtype]


@pytest.mark.parametrize("dtype", RELATIVE)
def test_every_block_equals_transformers(checkpoint: tuple[str, Path], dtype: torch.dtype) -> None:
    name, folder = checkpoint
    pixels = random_pixels(dtype, "wider")
    expected = reference(name, folder, pixels)
    prefix, depth = FAMILIES[name].prefix, BODY["num_hidden_layers"]
    for layer in range(1, depth + 1):
        encoder = load_encoder(folder, layer=layer, dtype=dtype, final_norm=False)
        assert len(encoder.vit.blocks) == layer
        patches = encoder(pixels).patches
        assert error(patches, expected.blocks[layer - 1][:, prefix:]) < RELATIVE[dtype]
        from_the_end = load_encoder(folder, layer=layer - depth - 1, dtype=dtype, final_norm=False)
        assert torch.equal(from_the_end(pixels).patches, patches)


def test_final_norm_can_be_asked_for(checkpoint: tuple[str, Path]) -> None:
    name, folder = checkpoint
    pixels = random_pixels(torch.float64, "own")
    expected = reference(name, folder, pixels)
    prefix = FAMILIES[name].prefix
    last = load_encoder(folder, dtype=torch.float64, final_norm=True)(pixels)
    assert error(last.patches, expected.normed[:, prefix:]) < RELATIVE[torch.float64]
    earlier = load_encoder(folder, layer=-2, dtype=torch.float64)(pixels)
    assert error(earlier.patches, expected.blocks[-2][:, prefix:]) < RELATIVE[torch.float64]
    assert earlier.pooled is None


@pytest.mark.parametrize("size", ["own", "wider"])
def test_image_embedding_beside_an_earlier_block(checkpoint: tuple[str, Path], size: str) -> None:
    name, folder = checkpoint
    pixels = random_pixels(torch.float64, size)
    expected = reference(name, folder, pixels)
    if expected.pooled is None:
        with pytest.raises(EncoderError, match="has no image embedding"):
            load_encoder(folder, layer=1, pooled=True)
        return
    out = load_encoder(folder, layer=1, dtype=torch.float64, pooled=True)(pixels)
    assert error(out.patches, expected.blocks[0][:, FAMILIES[name].prefix :]) < RELATIVE[torch.float64]
    assert error(out.pooled, expected.pooled) < RELATIVE[torch.float64]


def test_keys_are_those_of_the_output_block(checkpoint: tuple[str, Path]) -> None:
    _, folder = checkpoint
    pixels = random_pixels(torch.float64, "own")
    encoder = load_encoder(folder, layer=2, dtype=torch.float64)
    before = load_encoder(folder, layer=1, dtype=torch.float64)(pixels).patches
    block = encoder.vit.blocks[1]
    dim = encoder.dim
    bias = 0 if block.qkv.bias is None else block.qkv.bias[dim : 2 * dim]
    keys = block.norm1(before) @ block.qkv.weight[dim : 2 * dim].T + bias
    assert error(encoder(pixels).keys, keys) < RELATIVE[torch.float64]
