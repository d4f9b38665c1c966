"""Preprocessing of encoders that `transformers` runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pipeline.encode.foreign.pictures import read_pictures
from vtm.encoders import EncoderError
from vtm.encoders.checkpoint import Checkpoint
from vtm.encoders.image import normalise, resize_and_crop

ROUNDING = 1e-5


def checkpoint(folder: Path, name: str, content: dict[str, Any]) -> Checkpoint:
    (folder / name).write_text(json.dumps(content))
    return Checkpoint(name="made", folder=folder)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("BeitImageProcessor", {}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 96}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 64}, "crop_pct": 0.9}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
        ("LevitImageProcessor", {"size": {"shortest_edge": 97}, "crop_size": {"height": 97, "width": 97}}),
        ("PvtImageProcessor", {"image_mean": [0.1, 0.2, 0.3]}),
        ("SegformerImageProcessor", {"size": {"height": 65, "width": 99}}),
        ("VideoMAEImageProcessor", {"crop_size": {"height": 90, "width": 110}, "size": {"shortest_edge": 111}}),
    ],
)
def test_pictures_come_out_as_the_processor_makes_them(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    spec = read_pictures(
        checkpoint(tmp_path, "preprocessor_config.json", {"image_processor_type": name} | settings), False
    )
    picture = np.random.default_rng(5).integers(0, 256, (301, 433, 3), dtype=np.uint8)
    theirs = getattr(transformers, f"{name}Pil")(**settings)([picture], return_tensors="pt")["pixel_values"]
    ours = normalise(resize_and_crop(picture[None], spec), spec, torch.device("cpu"))
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    ("content", "resize_px", "crop_px", "black", "white"),
    [
        ({"video_processor_type": "VJEPA2VideoProcessor", "crop_size": 384}, 438, 384, -0.485 / 0.229, 0.515 / 0.229),
        # Pixels of ViViT are brought to [-1, 1] before its mean and deviation of 0.5 are applied.
        ({"video_processor_type": "VivitVideoProcessor"}, 256, 224, -3.0, 1.0),
        (
            {"image_processor_type": "VivitImageProcessor", "offset": False, "rescale_factor": 1 / 255},
            256,
            224,
            -1.0,
            1.0,
        ),
        ({"feature_extractor_type": "VideoMAEFeatureExtractor"}, 224, 224, -1.0, 1.0),
        ({"video_processor_type": "TimesformerVideoProcessor"}, 224, 224, -0.485 / 0.229, 0.515 / 0.229),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_processors_of_videos(
    content: dict[str, Any], resize_px: int, crop_px: int, black: float, white: float, nested: bool, tmp_path: Path
) -> None:
    of_videos = "video_processor_type" in content
    if nested:
        name, content = "processor_config.json", {"video_processor" if of_videos else "image_processor": content}
    else:
        name = "video_preprocessor_config.json" if of_videos else "preprocessor_config.json"
    spec = read_pictures(checkpoint(tmp_path, name, content), True)
    assert (spec.resize_mode, spec.resize_height_px, spec.crop_height_px) == ("shortest_edge", resize_px, crop_px)
    frames = np.stack([np.full((crop_px, crop_px, 3), level, dtype=np.uint8) for level in (0, 255)])
    red = normalise(frames, spec, torch.device("cpu"))[:, 0, 0, 0]
    torch.testing.assert_close(red, torch.tensor([black, white]), rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 288}}, "does more to a picture"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "no fixed size of pictures"),
        ({"image_processor_type": "SamImageProcessor"}, "size {'longest_edge': 1024} is not known"),
        ({"size": 224}, "names no processor"),
    ],
)
def test_what_is_no_plain_picture_is_said(content: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=expected):
        read_pictures(checkpoint(tmp_path, "preprocessor_config.json", content), False)
