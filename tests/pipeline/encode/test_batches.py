"""Batches of one shape: nothing lost where memory runs out, and on a GPU no waiting."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.encode.batches import FrameBatches, padded
from pipeline.encode.features import VitFeatures
from pipeline.encode.transfer import Transfer
from vtm.encoders import load_encoder

CPU = torch.device("cpu")


class SmallMemory:
    """An encoder's double that has memory for so many frames, and notes what it was asked for."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.asked: list[int] = []

    def __call__(self, frames_Bhw3: Tensor) -> Tensor:
        self.asked.append(len(frames_Bhw3))
        if len(frames_Bhw3) > self.frames:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return frames_Bhw3[:, 0, 0, 0].clone()


def numbered(count: int) -> NDArray[np.uint8]:
    return np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)


def joined(outputs: list[tuple[Tensor, int]]) -> list[int]:
    return [int(value) for output, count in outputs for value in output[:count]]


def test_a_clip_is_cut_in_order_and_its_end_is_short() -> None:
    memory = SmallMemory(7)
    outputs = FrameBatches(CPU, 7)(numbered(17), memory)
    assert joined(outputs) == list(range(17))
    assert memory.asked == [7, 7, 3]


def test_batches_halve_until_they_fit_and_stay_so(caplog: pytest.LogCaptureFixture) -> None:
    memory, batches = SmallMemory(3), FrameBatches(CPU, 13)
    with caplog.at_level(logging.WARNING):
        assert joined(batches(numbered(17), memory)) == list(range(17))
    assert memory.asked == [13, 6, 3, 3, 3, 3, 1, 3, 1]
    assert batches.batch_frames == 3
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "cpu has no memory to encode 13 frames at once: 6 from now on",
        "cpu has no memory to encode 6 frames at once: 3 from now on",
    ]
    assert joined(batches(numbered(5), memory)) == list(range(5))
    assert memory.asked[-2:] == [3, 2]


def test_a_device_too_small_for_one_frame_says_so() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        FrameBatches(CPU, 4)(numbered(3), SmallMemory(0))


def test_other_errors_pass() -> None:
    def broken(frames_Bhw3: Tensor) -> Tensor:
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        FrameBatches(CPU, 4)(numbered(3), broken)


def test_a_failed_attempt_holds_no_memory() -> None:
    """The tensors of the attempt that failed are gone when the smaller one begins."""
    held: list[Tensor] = []

    class Remembered(Tensor):
        """A tensor that says when it is gone."""

        def __del__(self) -> None:
            held.clear()

    def encode(frames_Bhw3: Tensor) -> Tensor:
        assert not held
        if len(frames_Bhw3) > 2:
            activations = frames_Bhw3.clone().as_subclass(Remembered)
            held.append(frames_Bhw3)
            raise torch.OutOfMemoryError(str(activations.shape))
        return frames_Bhw3[:, 0, 0, 0]

    assert joined(FrameBatches(CPU, 5)(numbered(5), encode)) == list(range(5))


def test_padding_is_black_and_last() -> None:
    frames = torch.ones(2, 3, 5, 3, dtype=torch.uint8)
    full = padded(frames, 7)
    assert full.shape == (7, 3, 5, 3)
    assert torch.equal(full[:2], frames)
    assert not full[2:].any()
    assert torch.equal(padded(frames, 2), frames)


def test_frames_that_may_not_be_written_to_are_transferred() -> None:
    frames = numbered(3)
    frames.flags.writeable = False
    assert torch.equal(next(iter(Transfer(CPU)([frames])))[:, 0, 0, 0], torch.arange(3, dtype=torch.uint8))


def test_batches_do_not_change_a_clip(tiny_encoder: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 21, 35, 3), dtype=np.uint8)
    encoder = load_encoder(tiny_encoder)
    one, other = (VitFeatures(encoder, batch)(frames, saliency=True) for batch in (3, 20))
    assert torch.equal(one.patches_1KD, other.patches_1KD)
    assert torch.equal(one.keys_1Kd, other.keys_1Kd)
    assert one.saliency_1K is not None
    assert other.saliency_1K is not None
    assert torch.equal(one.saliency_1K, other.saliency_1K)


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_encoding_looks_at_no_value(tiny_encoder: Path, keep: float) -> None:
    """Tensors on `meta` have none: whatever a GPU would have to be waited for fails here."""
    encoder = load_encoder(tiny_encoder, encoder_keep=keep).to("meta")
    out = encoder(encoder.normalise(torch.zeros(3, 21, 35, 3, dtype=torch.uint8)), saliency=True)
    assert out.patches.device.type == "meta"


@pytest.mark.gpu
def test_transfers_arrive_whole_while_the_gpu_computes(cuda: torch.device) -> None:
    """Many blocks, each read late: a block that is overwritten or read too soon has another sum."""
    blocks = [np.full((64, 64, 64, 3), number, dtype=np.uint8) for number in range(40)]
    busy = torch.randn(4096, 4096, device=cuda)
    sums = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        for block in Transfer(cuda)(blocks):
            busy = (busy @ busy).clamp(-1, 1)
            sums.append(block.long().sum())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [int(total) for total in sums] == [number * 64 * 64 * 64 * 3 for number in range(40)]


@pytest.mark.gpu
def test_a_gpu_is_not_waited_for_and_agrees_with_the_cpu(cuda: torch.device, tiny_encoder: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (17, 21, 35, 3), dtype=np.uint8)
    features = VitFeatures(load_encoder(tiny_encoder, device=cuda), 5)
    features(frames)
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_gpu = features(frames)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    on_cpu = VitFeatures(load_encoder(tiny_encoder), 5)(frames)
    torch.testing.assert_close(on_gpu.patches_1KD.cpu(), on_cpu.patches_1KD, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_a_full_gpu_halves_the_batch(cuda: torch.device, tiny_encoder: Path) -> None:
    """A real out-of-memory error: the share of memory that torch may use is made too small for the first batch."""
    frames = np.random.default_rng(0).integers(0, 256, (1024, 21, 35, 3), dtype=np.uint8)
    batches = FrameBatches(cuda, 1024)
    most_bytes = 64 << 20

    def encode(frames_Bhw3: Tensor) -> Tensor:
        activations = torch.ones(len(frames_Bhw3), most_bytes >> 9, device=cuda)
        return frames_Bhw3[:, 0, 0, 0].long() * activations[:, 0].long()

    torch.cuda.empty_cache()
    # Workspaces of libraries that earlier tests used are there already.
    limit_bytes = torch.cuda.memory_reserved(cuda) + most_bytes
    torch.cuda.set_per_process_memory_fraction(limit_bytes / torch.cuda.get_device_properties(cuda).total_memory)
    try:
        values = joined(batches(frames, encode))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert values == frames[:, 0, 0, 0].tolist()
    assert batches.batch_frames < 1024
