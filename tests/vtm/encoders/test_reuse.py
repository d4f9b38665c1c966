"""Patches that are not encoded again: the map of which, and what the encoder makes of a clip with such a map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from random_checkpoints import write_checkpoint

from vtm.encoders import Encoder, EncoderError, EncoderOutput, load_encoder
from vtm.encoders.positions import rotary_angles, rotary_of
from vtm.encoders.reuse import is_encoded, reuse_map
from vtm.encoders.reuse.packing import pack
from vtm.encoders.reuse.sweep import encode_changed, sweep
from vtm.encoders.threads import computing_alone

FAMILIES = ("dinov3", "siglip", "clip", "deit", "dinov2 swiglu")
"""Rotary with registers; no prefix; a norm before the blocks; two prefix tokens with positions; a gated MLP."""
EXACT_IN_FLOAT64 = 1e-10
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 0.02}
FRAMES, PATCHES = 7, 25


def literal_map(frames: np.ndarray, patch_px: int, levels: float, whole_above: float) -> list[list[int]]:
    rows, columns = frames.shape[1] // patch_px, frames.shape[2] // patch_px
    sources = [[0] * (rows * columns)]
    for number in range(1, len(frames)):
        now = list(sources[-1])
        for patch in range(rows * columns):
            y, x = patch // columns * patch_px, patch % columns * patch_px
            here = (slice(y, y + patch_px), slice(x, x + patch_px))
            difference = np.abs(frames[number][here].astype(float) - frames[now[patch]][here].astype(float))
            if difference.mean() > levels:
                now[patch] = number
        whole = now.count(number) > whole_above * len(now)
        sources.append([number] * len(now) if whole else now)
    return sources


@given(
    frames=st.tuples(st.integers(1, 5), st.integers(3, 8), st.integers(3, 8)).flatmap(
        lambda shape: arrays(np.uint8, (*shape, 3), elements=st.sampled_from([0, 1, 2, 3, 254, 255]))
    ),
    patch_px=st.integers(1, 3),
    levels=st.sampled_from([0, 0.5, 1, 3.25, 100.0]),
    whole_above=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_the_map_is_the_literal_one(frames: np.ndarray, patch_px: int, levels: float, whole_above: float) -> None:
    got = reuse_map(frames, patch_px, levels, whole_above=whole_above)
    assert got.tolist() == literal_map(frames, patch_px, levels, whole_above)


def test_a_frame_that_changed_by_more_than_a_third_is_encoded_whole() -> None:
    frames = np.zeros((3, 3, 3, 3), np.uint8)
    frames[1:, 0] = 9
    frames[2, 1, 1] = 9
    assert is_encoded(reuse_map(frames, 1, 2)).sum(dim=1).tolist() == [9, 3, 1]
    frames[1:, 1, 0] = 9
    assert is_encoded(reuse_map(frames, 1, 2)).sum(dim=1).tolist() == [9, 9, 1]


def test_slow_changes_add_up() -> None:
    brightening = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    assert reuse_map(brightening, 4, 2)[:, 0].tolist() == [0, 0, 0, 3, 3, 3, 6, 6]


@pytest.mark.parametrize("levels", [-1.0, float("nan")])
def test_a_threshold_that_is_none(levels: float) -> None:
    with pytest.raises(EncoderError, match=r"reuse levels (-1\.0|nan): expected 0 or more"):
        reuse_map(np.zeros((2, 4, 4, 3), np.uint8), 2, levels)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(request.param, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (FRAMES, 35, 35, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def source_TN() -> torch.Tensor:  # noqa: N802
    """A third of the patches encoded; none of frame 2, all of frame 4."""
    random = np.random.default_rng(5)
    source = np.zeros((FRAMES, PATCHES), dtype=np.int64)
    for number in range(1, FRAMES):
        encoded = random.random(PATCHES) < {2: 0.0, 4: 1.0}.get(number, 0.3)
        source[number] = np.where(encoded, number, source[number - 1])
    return torch.from_numpy(source)


def whole(num_frames: int) -> torch.Tensor:
    return torch.arange(num_frames)[:, None].expand(-1, PATCHES)


def assert_same_bytes(one: EncoderOutput, other: EncoderOutput) -> None:
    for name in ("patches", "keys", "cls", "registers", "saliency"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours is None) == (theirs is None), name
        assert ours is None or torch.equal(ours, theirs), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", [2, -1])
def test_with_nothing_reused_it_is_the_plain_path(
    folder: Path, frames: np.ndarray, dtype: torch.dtype, layer: int
) -> None:
    encoder = load_encoder(folder, layer=layer, dtype=dtype)
    plain = encoder(encoder.normalise(frames), saliency=True)
    # Products of as many rows as the plain path's: kernels may round by their number.
    packing = pack(whole(FRAMES), encoder.config.num_prefix, group_rows=plain.patches.numel(), batch_frames=1)
    with computing_alone():
        assert_same_bytes(sweep(encoder, torch.from_numpy(frames), packing, 1, saliency=True), plain)
    cut = encode_changed(encoder, frames, whole(FRAMES)).patches
    assert (cut - plain.patches).norm() < ROUNDING[dtype] * plain.patches.norm()


def test_frames_that_are_the_same_have_the_same_tokens(folder: Path, frames: np.ndarray) -> None:
    encoder = load_encoder(folder)
    still = frames[[0, 0, 0, 1]]
    source = reuse_map(still, 7, 0)
    assert is_encoded(source).sum(dim=1).tolist() == [PATCHES, 0, 0, PATCHES]
    out = encode_changed(encoder, still, source)
    for copy in (1, 2):
        assert torch.equal(out.patches[copy], out.patches[0])
        assert torch.equal(out.keys[copy], out.keys[0])
    plain = encoder(encoder.normalise(still)).patches
    assert (out.patches - plain).norm() < ROUNDING[torch.float32] * plain.norm()


def stale_keys(encoder: Encoder, frames: np.ndarray, source_TN: torch.Tensor) -> torch.Tensor:
    """(T, S, D): every frame whole through every block; after each, stand-ins replace unchanged patches' tokens."""
    vit, num_prefix = encoder.vit, encoder.config.num_prefix
    prefix = torch.arange(len(frames))[:, None].expand(-1, num_prefix)
    source_TSD = torch.cat((prefix, source_TN), dim=1)[..., None].expand(-1, -1, encoder.dim)
    x_TSD = vit.embed(encoder.normalise(frames)).gather(0, source_TSD)
    rotary = None
    if encoder.config.positions.kind == "rotary":
        cos, sin = rotary_of(rotary_angles(encoder.grid_hw, encoder.config.head_dim, encoder.config.positions.theta))
        rotary = cos.double(), sin.double()
    for block in vit.block_list():
        x_TSD = block(x_TSD, rotary).gather(0, source_TSD)
    return x_TSD if encoder.norm is None or not encoder.final_norm else encoder.norm(x_TSD)


def test_what_is_not_encoded_keeps_its_stand_in_in_every_block(
    folder: Path, frames: np.ndarray, source_TN: torch.Tensor
) -> None:
    encoder = load_encoder(folder, dtype=torch.float64)
    num_prefix = encoder.config.num_prefix
    expected = stale_keys(encoder, frames, source_TN)
    out = encode_changed(encoder, frames, source_TN)
    assert torch.allclose(out.patches, expected[:, num_prefix:], atol=EXACT_IN_FLOAT64)
    if num_prefix:
        assert out.cls is not None
        assert torch.allclose(out.cls, expected[:, 0], atol=EXACT_IN_FLOAT64)
    assert not torch.allclose(out.patches, encoder(encoder.normalise(frames)).patches, atol=1e-3)


@pytest.mark.parametrize(
    ("group_rows", "batch_frames", "query_step"), [(7, 1, 1), (40, 2, 4), (400, 3, 99), (400, 20, 5)]
)
def test_batches_of_padded_queries(
    folder: Path, frames: np.ndarray, source_TN: torch.Tensor, group_rows: int, batch_frames: int, query_step: int
) -> None:
    encoder = load_encoder(folder, dtype=torch.float64)
    packing = pack(
        source_TN, encoder.config.num_prefix, group_rows=group_rows, batch_frames=batch_frames, query_step=query_step
    )
    lengths = {batch.query_BQ.shape[1] for group in packing.groups for batch in group.batches}
    assert all(length % query_step == 0 or length == packing.row_TS.shape[1] for length in lengths)
    got = sweep(encoder, torch.from_numpy(frames), packing, 1, saliency=True)
    expected = encode_changed(encoder, frames, source_TN, saliency=True)
    assert torch.allclose(got.patches, expected.patches, atol=EXACT_IN_FLOAT64)
    assert torch.allclose(got.keys, expected.keys, atol=EXACT_IN_FLOAT64)
    assert got.saliency is not None
    assert expected.saliency is not None
    assert torch.allclose(got.saliency, expected.saliency, atol=1e-6)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_do_not_depend_on_threads(
    folder: Path, frames: np.ndarray, source_TN: torch.Tensor, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtm.encoders.reuse.sweep.CPU_LEAST_ROWS", 5)
    encoder = load_encoder(folder, dtype=dtype)
    outputs = []
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        with torch.inference_mode():
            outputs.append(encode_changed(encoder, frames, source_TN, saliency=True))
        assert torch.get_num_threads() == num_threads
    assert_same_bytes(outputs[0], outputs[1])
    assert_same_bytes(outputs[0], outputs[2])


def test_maps_that_do_not_hold_are_refused(tmp_path: Path, frames: np.ndarray) -> None:
    encoder = load_encoder(write_checkpoint("dinov3", tmp_path))
    with pytest.raises(EncoderError, match=r"the map is \(6, 25\), expected \(7, 25\)"):
        encode_changed(encoder, frames, whole(FRAMES)[1:])
    unsound = whole(FRAMES).clone()
    unsound[1], unsound[2] = 0, 1
    with pytest.raises(EncoderError, match="in which the patch is not encoded"):
        encode_changed(encoder, frames, unsound)
    with pytest.raises(EncoderError, match="in which the patch is not encoded"):
        encode_changed(encoder, frames, whole(FRAMES) + 1)
    merging = load_encoder(tmp_path, encoder_keep=0.5)
    with pytest.raises(EncoderError, match=r"encoder_keep 0\.5 dissolves the patches"):
        encode_changed(merging, frames, whole(FRAMES))
