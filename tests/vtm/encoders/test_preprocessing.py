"""Frames become the pixels that each family's own processor (Pillow) makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from random_checkpoints import FAMILIES

from vtm.encoders import EncoderError, ImageSpec, read_image_spec
from vtm.encoders.image import image_spec, normalise, resize_and_crop

PILLOW = {
    "vit": "ViTImageProcessorPil",
    "vit classifier": "ViTImageProcessorPil",
    "deit": "DeiTImageProcessorPil",
    "dinov2": "BitImageProcessorPil",
    "clip": "CLIPImageProcessorPil",
    "siglip": "SiglipImageProcessorPil",
}
SIZES = [(35, 35), (41, 53), (97, 61), (47, 131), (20, 23), (360, 641)]
NORMALISED_TOLERANCE = 1e-6


def frames_of(height_px: int, width_px: int) -> np.ndarray:
    """Noise over a gradient: edges, flats and full swings."""
    rng = np.random.default_rng(height_px * 1000 + width_px)
    ramp = np.linspace(0, 255, width_px)[None, None, :, None]
    noise = rng.integers(-120, 120, (2, height_px, width_px, 3))
    return np.clip(ramp + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", PILLOW)
@pytest.mark.parametrize("size", SIZES)
def test_resize_equals_pillow_bit_for_bit(name: str, size: tuple[int, int]) -> None:
    config = dict(FAMILIES[name].processor)
    processor = getattr(transformers, PILLOW[name])(**config)
    frames = frames_of(*size)
    expected = processor(list(frames), do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    got = resize_and_crop(frames, image_spec(config, 7))
    assert got.dtype == torch.uint8
    assert np.array_equal(got.permute(0, 3, 1, 2).numpy(), expected)


@pytest.mark.parametrize("name", PILLOW)
def test_pixels_equal_the_processor(name: str) -> None:
    config = dict(FAMILIES[name].processor)
    processor = getattr(transformers, PILLOW[name])(**config)
    frames = frames_of(53, 71)
    expected = processor(list(frames), return_tensors="np")["pixel_values"]
    spec = image_spec(config, 7)
    got = normalise(resize_and_crop(frames, spec), spec, torch.device("cpu"))
    assert got.dtype == torch.float32
    assert np.abs(got.numpy() - expected).max() < NORMALISED_TOLERANCE


@pytest.mark.parametrize("name", sorted(PILLOW))
def test_silent_files_take_the_processor_classs_defaults(name: str) -> None:
    processor = getattr(transformers, PILLOW[name])()
    spec = image_spec({"image_processor_type": PILLOW[name]}, 16)
    frames = frames_of(300, 411)
    expected = processor(list(frames), return_tensors="np")["pixel_values"]
    got = normalise(resize_and_crop(frames, spec), spec, torch.device("cpu"))
    assert np.abs(got.numpy() - expected).max() < NORMALISED_TOLERANCE


def test_spec_is_read_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", "patch_size": 7}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(dict(FAMILIES["dinov2"].processor)))
    spec = read_image_spec(tmp_path)
    assert spec == ImageSpec(
        resize_mode="shortest_edge",
        resize_height_px=41,
        resize_width_px=41,
        crop_height_px=35,
        crop_width_px=35,
        interpolation="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        rescale=1 / 255,
        patch_px=7,
    )
    assert spec.grid_hw == (5, 5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_processor_type": "PixtralImageProcessor"}, "PixtralImageProcessor"),
        ({"resample": 1}, "resample"),
        ({"do_resize": False}, "do_resize"),
        ({"do_center_crop": False}, "shortest_edge"),
        ({"size": {"longest_edge": 7}}, "longest_edge"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"crop_size": 99}, "99 x 99"),
    ],
)
def test_odd_preprocessing_is_named(change: dict[str, object], named: str) -> None:
    config = {**FAMILIES["dinov2"].processor, **change}
    with pytest.raises(EncoderError, match=named) as caught:
        image_spec(config, 7)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 9, 9, 3), np.float32), np.zeros((9, 9, 3), np.uint8), np.zeros((1, 9, 9, 4), np.uint8)]
)
def test_other_arrays_than_rgb_frames_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(EncoderError, match="expected uint8"):
        resize_and_crop(frames, image_spec(dict(FAMILIES["vit"].processor), 7))
