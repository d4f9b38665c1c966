"""Runs in which patches that did not change are not encoded again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.encode.reuse import ReusingFeatures
from pipeline.errors import SettingsError
from pipeline.run_description import EncoderDescription, RunDescription
from pipeline.settings import Recipe
from pipeline.verify import verify
from tests.pipeline.runs import rows_of, run, tiny_recipe
from tests.synthetic import make_video, picture
from vtm.encoders import EncoderOutput, load_encoder
from vtm.encoders.reuse.sweep import encode_changed

PATCHES = 15
"""Of a frame of the tiny encoder."""


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 s of a picture whose left edge moves; 6 clips of the tiny recipe, the last of one frame."""
    first = picture(0, size=(64, 110))
    frames = []
    for number in range(201):
        frame = first.copy()
        frame[:, :16] = np.roll(frame[:, :16], 2 * number, axis=0)
        frames.append(frame)
    return make_video(tmp_path_factory.mktemp("videos") / "still.mp4", frames=frames, fps=25, gop=50, bframes=2)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("changes", [{}, {"strategy": "saliency", "compute_dtype": "bfloat16"}])
def test_bytes_depend_neither_on_units_nor_on_threads(
    changes: dict[str, str], still: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tiny_encoder, reuse_levels=4.0, **changes)
    torch.set_num_threads(1)
    summary = run([still], tmp_path / "one", recipe, unit_clips=1, workers=1)
    torch.set_num_threads(3)
    run([still], tmp_path / "ten", recipe, unit_clips=10)
    assert verify(tmp_path / "one").problems == ()
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "ten")
    tally = summary.tally
    assert tally.patches == 17 * PATCHES
    assert tally.encoded_patches is not None
    # The first frames of 6 clips whole, and of the 11 others what moves: the left column of three.
    assert 6 * PATCHES < tally.encoded_patches <= 6 * PATCHES + 11 * 3
    assert f"patches encoded {tally.encoded_patches / tally.patches:.0%}" in summary.lines()
    assert summary.to_json()["run"]["encoded_patches"] == tally.encoded_patches


@pytest.mark.usefixtures("local_ray")
def test_same_bytes_on_ray(still: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_encoder, reuse_levels=4.0)
    alone = run([still], tmp_path / "inline", recipe)
    on_ray = run([still], tmp_path / "ray", recipe, engine="ray", workers=2, unit_clips=1)
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "inline")
    assert on_ray.tally.encoded_patches == alone.tally.encoded_patches


def test_the_threshold_says_how_much_is_encoded(still: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    everything = run([still], tmp_path / "plain", tiny_recipe(tiny_encoder))
    assert everything.tally.encoded_patches is None
    assert not any("patches encoded" in line for line in everything.lines())
    least = run([still], tmp_path / "least", tiny_recipe(tiny_encoder, reuse_levels=255))
    assert least.tally.encoded_patches == 6 * PATCHES
    assert rows_of(tmp_path / "plain") != rows_of(tmp_path / "least")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reuse_levels": 2.0, "encoder_keep": 0.5}, r"--reuse-levels 2\.0 .*--encoder-keep 0\.5 merges"),
        ({"reuse_levels": -1.0}, r"--reuse-levels -1\.0 must be 0 to 255"),
        ({"reuse_levels": float("nan")}, r"--reuse-levels nan must be 0 to 255"),
    ],
)
def test_what_cannot_be(settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Recipe(**settings)  # type: ignore[arg-type]


def test_the_threshold_is_part_of_the_fingerprint() -> None:
    encoder = EncoderDescription(name="e", revision=None, weights_sha256="a", dim=7, compute_dtype="float32")

    def fingerprint(levels: float | None) -> str:
        return RunDescription(recipe=Recipe(reuse_levels=levels), encoder=encoder).fingerprint()

    assert len({fingerprint(levels) for levels in (None, 0.0, 2.0)}) == 3
    # A recipe file may say 2, the command line says 2.0.
    assert fingerprint(2) == fingerprint(2.0)


def test_batches_halve_when_memory_runs_out(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 21, 35, 3), dtype=np.uint8)
    encoder, asked = load_encoder(tiny_encoder), []
    expected = ReusingFeatures(encoder, 3, 4.0)(frames)

    def small_memory(*args: object, batch_frames: int, **more: object) -> EncoderOutput:
        asked.append(batch_frames)
        if batch_frames > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode_changed(*args, batch_frames=batch_frames, **more)

    monkeypatch.setattr("pipeline.encode.reuse.encode_changed", small_memory)
    features = ReusingFeatures(encoder, 13, 4.0)
    assert torch.equal(features(frames).patches_1KD, expected.patches_1KD)
    features(frames)
    assert asked == [13, 6, 3, 3]
