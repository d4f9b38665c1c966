"""Compiled blocks: one compilation for all of them and every batch, and none where there is no compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from random_checkpoints import write_checkpoint

from vtm.encoders import Encoder, EncoderError, load_encoder
from vtm.encoders.compiling import compile_blocks

FAMILIES = ["dinov2 registers", "dinov3 gated", "clip", "siglip"]
ON_GPU = 2e-3
"""Relative, of float32 sums in another order, over three random blocks."""


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_checkpoint(request.param, tmp_path)


class Counting:
    """A backend that compiles nothing and notes how often it was asked to."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, example_inputs: list[torch.Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


def patches(encoder: Encoder, frames: int, seed: int) -> torch.Tensor:
    pixels = torch.randn(frames, 3, 35, 35, generator=torch.Generator().manual_seed(seed), dtype=encoder.dtype)
    with torch.inference_mode():
        return encoder.vit(pixels.to(encoder.device))[0]


def test_all_blocks_and_batches_share_one_graph(folder: Path) -> None:
    backend, plain = Counting(), load_encoder(folder)
    encoder = load_encoder(folder)
    compile_blocks(encoder, 5, backend)
    assert backend.graphs == 1
    for seed in range(3):
        assert torch.equal(patches(encoder, 5, seed), patches(plain, 5, seed))
    assert backend.graphs == 1


def test_a_compiler_that_fails_is_an_error_and_not_other_bytes(folder: Path) -> None:
    def missing(graph: torch.fx.GraphModule, example_inputs: list[torch.Tensor]) -> Callable[..., Any]:
        raise OSError("no compiler\nfound here")

    encoder = load_encoder(folder)
    with pytest.raises(EncoderError, match="cannot be compiled: OSError: no compiler: leave out --compile"):
        compile_blocks(encoder, 2, missing)
    assert torch.equal(patches(encoder, 2, 0), patches(load_encoder(folder), 2, 0))


def test_what_cannot_be_compiled_is_said(tmp_path: Path) -> None:
    folder = write_checkpoint("dinov2", tmp_path)
    with pytest.raises(EncoderError, match=r"encoder_keep 0\.5 takes blocks apart"):
        compile_blocks(load_encoder(folder, encoder_keep=0.5), 2)
    packed = load_encoder(folder, dtype=torch.bfloat16)
    if packed.vit.patch.weight.is_mkldnn:
        with pytest.raises(EncoderError, match="laid out for a CPU"):
            compile_blocks(packed, 2)


@pytest.mark.gpu
def test_a_gpu_compiles_and_agrees(cuda: torch.device, folder: Path) -> None:
    plain, encoder = load_encoder(folder, device=cuda), load_encoder(folder, device=cuda)
    compile_blocks(encoder, 5)
    expected = patches(plain, 5, 0)
    assert (patches(encoder, 5, 0) - expected).abs().max() < ON_GPU * expected.abs().max()


def test_inductor_times_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that are chosen by their speed on one machine round differently on another."""
    from torch._inductor import config

    monkeypatch.setattr(config, "deterministic", False)
    compiled: list[str] = []
    monkeypatch.setattr(
        "vtm.encoders.vit.Block.compile", lambda block, **settings: compiled.append(settings["backend"])
    )
    compile_blocks(load_encoder(write_checkpoint("dinov2", tmp_path)), 2)
    assert set(compiled) == {"inductor"}
    assert config.deterministic
