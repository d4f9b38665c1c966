"""The preprocessor's file of any model of `transformers` -> ImageSpec, checked against the model's own processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pipeline.encode.foreign import library
from vtm.encoders import EncoderError, ImageSpec
from vtm.encoders.checkpoint import PREPROCESSOR, Checkpoint, read_json
from vtm.encoders.image import image_spec, normalise, resize_and_crop
from vtm.encoders.threads import computing_alone

VIDEO_PREPROCESSOR = "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"
TOLERANCE = 0.02
"""Mean difference of normalised pixels: torchvision's resize is levels of 1/255 off Pillow's, another crop far more."""

_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_CLIP_224 = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224, "resample": 2}
_DEFAULTS: dict[str, Mapping[str, Any]] = {
    "DINOv3ViT": {"size": {"height": 224, "width": 224}, "resample": 2} | _IMAGENET,
    "Timesformer": _CLIP_224 | _IMAGENET,
    "VJEPA2": _CLIP_224 | _IMAGENET | {"crop_size": 256},
    "VideoMAE": _CLIP_224 | _HALF,
    "Vivit": _CLIP_224 | _HALF | {"size": {"shortest_edge": 256}, "rescale_factor": 1 / 127.5, "offset": True},
}
"""What processors whose classes need torchvision do where their file is silent."""


def read_pictures(checkpoint: Checkpoint, is_video: bool) -> ImageSpec:
    """What a checkpoint's preprocessor does to a picture; `patch_px` is 1.

    Raises:
        EncoderError: there is no such file, or it asks for more than a resize, a crop and a normalisation.
    """
    file, config = read_processor(checkpoint, is_video)
    named = str(config.get("video_processor_type") or config.get("image_processor_type") or "")
    named = named or str(config.get("feature_extractor_type") or "")
    name = named
    for ending in ("Pil", "Fast", "ImageProcessor", "VideoProcessor", "FeatureExtractor"):
        name = name.removesuffix(ending)
    defaults = _DEFAULTS.get(name) or library.processor_defaults(name)
    if defaults is None:
        raise EncoderError(
            f"{checkpoint.name}: {file} names {named or 'no processor'}, which transformers does not have"
            + (", or only with torchvision" if named else "")
        )
    try:
        spec = _spec(name, {**defaults, **{key: value for key, value in config.items() if value is not None}})
    except KeyError as error:
        raise EncoderError(f"{checkpoint.name}: {named} has no {error}: no fixed size of pictures is known") from error
    processor = None if file == VIDEO_PREPROCESSOR else library.own_processor(name, config)
    if processor is not None:
        _check(spec, processor, f"{checkpoint.name}: {named}")
    elif name not in _DEFAULTS:
        raise EncoderError(f"{checkpoint.name}: {named} cannot be built to compare with: it may need torchvision")
    return spec


def read_processor(checkpoint: Checkpoint, is_video: bool) -> tuple[str, Mapping[str, Any]]:
    """The preprocessor's settings, and the file that holds them.

    Raises:
        EncoderError: there is no such file.
    """
    for file in (VIDEO_PREPROCESSOR, PREPROCESSOR) if is_video else (PREPROCESSOR,):
        if (checkpoint.folder / file).is_file():
            return file, read_json(checkpoint.folder / file)
    if (checkpoint.folder / PROCESSOR).is_file():
        parts = read_json(checkpoint.folder / PROCESSOR)
        for file, part in ((VIDEO_PREPROCESSOR, "video_processor"), (PREPROCESSOR, "image_processor")):
            if isinstance(parts.get(part), Mapping):
                return file, parts[part]
    return PREPROCESSOR, read_json(checkpoint.folder / PREPROCESSOR)


def _spec(name: str, fields: Mapping[str, Any]) -> ImageSpec:
    """The fields in the form of a plain processor."""
    changed: dict[str, Any] = {}
    edge = fields["size"].get("shortest_edge") if isinstance(fields["size"], Mapping) else fields["size"]
    if name == "VJEPA2":
        # The class works out the resize from the crop, whatever the file says.
        changed = {"size": {"shortest_edge": int(_edge(fields["crop_size"]) * 256 / 224)}}
    elif name == "ConvNext" and edge is not None and not fields.get("do_center_crop"):
        # Below 384 px a crop of this share, from there on the whole picture, warped.
        square = {"height": edge, "width": edge}
        cropped = {
            "size": {"shortest_edge": int(edge / fields["crop_pct"])},
            "do_center_crop": True,
            "crop_size": square,
        }
        changed = {"size": square} if edge >= 384 else cropped
    elif name == "Levit" and edge is not None:
        changed = {"size": {"shortest_edge": int(256 / 224 * edge)}}
    plain = {"do_center_crop": False, **fields, **changed, "image_processor_type": "BitImageProcessor"}
    spec = image_spec(plain, 1)
    # (x - 1 - mean) / std where the pixels are brought to [-1, 1] first.
    shift = 1.0 if fields.get("offset") and fields.get("do_rescale", True) else 0.0
    red, green, blue = spec.mean
    return replace(spec, mean=(red + shift, green + shift, blue + shift))


def _edge(size: Any) -> int:
    return int(size["height"] if isinstance(size, Mapping) else size)


def _check(spec: ImageSpec, processor: Any, name: str) -> None:
    """See on one picture that the processor does what the spec says, and nothing else."""
    height_px, width_px = spec.crop_height_px * 9 // 8, spec.crop_width_px * 5 // 4
    y_H1, x_1W = np.arange(height_px)[:, None], np.arange(width_px)[None]
    planes = [(y_H1 * 3 + x_1W) % 256, (x_1W * 2 + y_H1 // 2) % 256, (y_H1 + 5 * x_1W) % 199]
    picture_HW3 = np.stack(planes, axis=-1).astype(np.uint8)
    try:
        theirs = processor([picture_HW3], return_tensors="pt")["pixel_values"].flatten()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EncoderError(f"{name} takes no single picture ({library.first_line(error)})") from error
    with computing_alone():
        ours = normalise(resize_and_crop(picture_HW3[None], spec), spec, torch.device("cpu")).flatten()
    if theirs.shape != ours.shape or float((theirs - ours).abs().mean()) > TOLERANCE:
        raise EncoderError(f"{name} does more to a picture than to resize, crop, rescale and normalise it")
