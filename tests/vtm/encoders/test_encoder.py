"""The encoder as a whole: bytes that depend on the frame alone, saliency, frames in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from random_checkpoints import BODY, write_checkpoint

from vtm.encoders import Encoder, EncoderError, EncoderOutput, load_encoder

HALF_TOLERANCE = 0.05
"""bfloat16 has 8 bits: relative, over three random blocks."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("dinov2 registers", tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random_frames(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 35, 35, 3), dtype=np.uint8)


def same_bytes(one: EncoderOutput, other: EncoderOutput) -> bool:
    return torch.equal(one.patches, other.patches) and torch.equal(one.keys, other.keys)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("keep", [1.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_depend_neither_on_threads_nor_on_the_batch(folder: Path, dtype: torch.dtype, keep: float) -> None:
    encoder = load_encoder(folder, dtype=dtype, encoder_keep=keep)
    pixels = encoder.normalise(random_frames(5))
    torch.set_num_threads(1)
    alone = [encoder(pixels[i : i + 1]) for i in range(5)]
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        batch = encoder(pixels)
        assert same_bytes(batch, EncoderOutput.stack(alone))
        assert same_bytes(encoder(pixels.flip(0)), EncoderOutput.stack(alone[::-1]))
        assert torch.get_num_threads() == num_threads


def test_half_precision_is_near(folder: Path) -> None:
    pixels = load_encoder(folder).normalise(random_frames(2))
    exact = load_encoder(folder)(pixels).patches
    half = load_encoder(folder, dtype=torch.bfloat16)(pixels.bfloat16()).patches
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).norm() < HALF_TOLERANCE * exact.norm()


def test_saliency_is_the_blocks_own_attention(folder: Path) -> None:
    encoder = load_encoder(folder, layer=2, dtype=torch.float64)
    pixels = encoder.normalise(random_frames(2)).double()
    saliency = encoder(pixels, saliency=True).saliency
    assert encoder(pixels).saliency is None
    _, attention = encoder.vit(pixels)
    scale = (BODY["hidden_size"] // BODY["num_attention_heads"]) ** -0.5
    scores = attention.queries @ attention.keys.transpose(2, 3) * scale
    expected = scores.softmax(dim=-1)[:, :, 0, -25:].mean(dim=1)
    assert saliency is not None
    assert torch.allclose(saliency, expected.float(), atol=1e-6)


def test_saliency_without_cls_is_attention_received(tmp_path: Path) -> None:
    encoder = load_encoder(write_checkpoint("siglip", tmp_path))
    saliency = encoder(encoder.normalise(random_frames(2)), saliency=True).saliency
    assert saliency is not None
    assert saliency.shape == (2, 25)
    assert torch.allclose(saliency.sum(dim=1), torch.ones(2))


def test_frames_of_any_size_come_in_frames_of_another_do_not(folder: Path) -> None:
    encoder = load_encoder(folder)
    frames = np.zeros((2, 50, 61, 3), np.uint8)
    assert encoder.preprocess(frames).shape == (2, 3, 35, 35)
    with pytest.raises(EncoderError, match="expected \\(35, 35\\)"):
        encoder.normalise(frames)


def test_weights_do_not_train(folder: Path) -> None:
    encoder = load_encoder(folder)
    assert isinstance(encoder, Encoder)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert (encoder.dim, encoder.grid_hw, encoder.name) == (24, (5, 5), str(folder))


@pytest.mark.parametrize("layer", [0, 4, -4])
def test_blocks_that_are_not_there_are_refused(folder: Path, layer: int) -> None:
    with pytest.raises(EncoderError, match=f"layer {layer}: expected 1 to 3"):
        load_encoder(folder, layer=layer)
