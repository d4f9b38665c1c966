"""preprocessor_config.json -> ImageSpec, and frames -> pixels as it says.

Letters: T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vtm.encoders.checkpoint.families import vit_config
from vtm.encoders.checkpoint.files import PREPROCESSOR, open_checkpoint, read_json
from vtm.errors import EncoderError
from vtm.upload import to_device

Interpolation = Literal["bicubic", "bilinear"]
RESAMPLE: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers for its filters."""
FILTERS = {name: Image.Resampling(number) for number, name in RESAMPLE.items()}

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """What an encoder's own preprocessor does to a picture."""

    resize_mode: Literal["exact", "shortest_edge"]
    """`exact`: to (resize_height_px, resize_width_px). `shortest_edge`: the shorter side to resize_height_px."""
    resize_height_px: int
    resize_width_px: int
    crop_height_px: int
    """Centre crop after the resize; equal to the resize for an exact one without a crop."""
    crop_width_px: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float
    """Factor from uint8 to the range that `mean` and `std` refer to."""
    patch_px: int

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patches of one frame, rows and columns."""
        return self.crop_height_px // self.patch_px, self.crop_width_px // self.patch_px


@dataclass(frozen=True, slots=True, kw_only=True)
class _Defaults:
    """What a processor class does where its file is silent."""

    size: Mapping[str, int]
    crop: bool
    resample: int
    mean_std: tuple[tuple[float, float, float], tuple[float, float, float]]


_SQUARE = {"height": 224, "width": 224}
_PROCESSORS: dict[str, _Defaults] = {
    "Bit": _Defaults(size={"shortest_edge": 224}, crop=True, resample=3, mean_std=_CLIP),
    "CLIP": _Defaults(size={"shortest_edge": 224}, crop=True, resample=3, mean_std=_CLIP),
    "DINOv3ViT": _Defaults(size=_SQUARE, crop=False, resample=2, mean_std=_IMAGENET),
    "DeiT": _Defaults(size={"height": 256, "width": 256}, crop=True, resample=3, mean_std=_HALF),
    "Siglip": _Defaults(size=_SQUARE, crop=False, resample=3, mean_std=_HALF),
    "ViT": _Defaults(size=_SQUARE, crop=False, resample=2, mean_std=_HALF),
}


def read_image_spec(folder_or_id: str | Path, revision: str | None = None) -> ImageSpec:
    """Read an encoder's picture size and normalisation; needs no weights.

    Raises:
        EncoderError: the checkpoint cannot be found, or its preprocessing is none that this package knows.
    """
    checkpoint = open_checkpoint(folder_or_id, revision=revision, weights=False)
    return image_spec(read_json(checkpoint.folder / PREPROCESSOR), vit_config(checkpoint.config()).patch_px)


def image_spec(config: Mapping[str, Any], patch_px: int) -> ImageSpec:
    """`read_image_spec` of a parsed preprocessor_config.json."""
    defaults = _PROCESSORS[_processor(config)]
    size = _size(config.get("size", defaults.size), "shortest_edge" in defaults.size)
    resample = config.get("resample", defaults.resample)
    if resample not in RESAMPLE:
        raise EncoderError(f"{PREPROCESSOR}: resample is {resample!r}, expected 2 (bilinear) or 3 (bicubic)")
    if not config.get("do_resize", True):
        raise EncoderError(f"{PREPROCESSOR}: do_resize is false; video frames come in any size and must be resized")
    shortest = size.get("shortest_edge")
    height_px, width_px = (shortest, shortest) if shortest else (size["height"], size["width"])
    crops = config.get("do_center_crop", defaults.crop)
    if shortest and not crops:
        raise EncoderError(
            f"{PREPROCESSOR}: shortest_edge without a centre crop gives frames of many sizes; add a crop_size"
        )
    crop = _size(config.get("crop_size", _SQUARE), False) if crops else {"height": height_px, "width": width_px}
    normalises = config.get("do_normalize", True)
    mean, std = defaults.mean_std
    spec = ImageSpec(
        resize_mode="shortest_edge" if shortest else "exact",
        resize_height_px=height_px,
        resize_width_px=width_px,
        crop_height_px=crop["height"],
        crop_width_px=crop["width"],
        interpolation=RESAMPLE[resample],
        mean=_three(config.get("image_mean", mean), "image_mean") if normalises else (0.0, 0.0, 0.0),
        std=_three(config.get("image_std", std), "image_std") if normalises else (1.0, 1.0, 1.0),
        rescale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
        patch_px=patch_px,
    )
    if spec.crop_height_px > spec.resize_height_px or spec.crop_width_px > spec.resize_width_px or 0 in spec.grid_hw:
        raise EncoderError(
            f"{PREPROCESSOR}: a crop of {spec.crop_height_px} x {spec.crop_width_px} px does not fit a resize to "
            f"{height_px} x {width_px} px with patches of {patch_px} px"
        )
    return spec


def _processor(config: Mapping[str, Any]) -> str:
    """The family of processors, from the class that the file names in one of its ages' spellings."""
    named = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    for end in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        named = named.removesuffix(end)
    if named not in _PROCESSORS:
        raise EncoderError(
            f"{PREPROCESSOR}: image_processor_type {config.get('image_processor_type')!r} is not known; "
            f"expected one of {', '.join(f'{name}ImageProcessor' for name in _PROCESSORS)}"
        )
    return named


def _size(value: object, shortest_edge: bool) -> Mapping[str, int]:
    """A size in one of its spellings: a number, {height, width} or {shortest_edge}."""
    if isinstance(value, int):
        return {"shortest_edge": value} if shortest_edge else {"height": value, "width": value}
    if isinstance(value, Mapping) and (set(value) == {"shortest_edge"} or set(value) == {"height", "width"}):
        return value
    raise EncoderError(f"{PREPROCESSOR}: size {value!r} is not known; expected {{height, width}} or {{shortest_edge}}")


def _three(value: object, name: str) -> tuple[float, float, float]:
    if isinstance(value, (list, tuple)) and len(value) == 3:
        return float(value[0]), float(value[1]), float(value[2])
    raise EncoderError(f"{PREPROCESSOR}: {name} is {value!r}, expected three numbers")


def as_frames(frames: NDArray[np.uint8] | Tensor) -> Tensor:
    """Check that these are RGB frames; returns them as a tensor without copying.

    Raises:
        EncoderError: not (T, H, W, 3) uint8.
    """
    frames_THW3 = torch.from_numpy(frames) if isinstance(frames, np.ndarray) else frames
    if frames_THW3.dtype != torch.uint8 or frames_THW3.ndim != 4 or frames_THW3.shape[-1] != 3:
        raise EncoderError(f"frames are {frames_THW3.dtype} {tuple(frames_THW3.shape)}, expected uint8 (T, H, W, 3)")
    return frames_THW3


def resize_and_crop(frames: NDArray[np.uint8] | Tensor, spec: ImageSpec) -> Tensor:
    """Frames of any size -> frames of the encoder's size, resized by Pillow.

    Args:
        frames: (T, H, W, 3) uint8 RGB, on the CPU.
        spec: the encoder's.

    Returns:
        (T, crop_height_px, crop_width_px, 3) uint8.
    """
    frames_THW3 = as_frames(frames)
    height_px, width_px = resized_hw(frames_THW3.shape[1], frames_THW3.shape[2], spec)
    if tuple(frames_THW3.shape[1:3]) != (height_px, width_px):
        resized_THW3 = frames_THW3.new_empty(len(frames_THW3), height_px, width_px, 3)
        for frame_HW3, resized_HW3 in zip(frames_THW3, resized_THW3, strict=True):
            picture = Image.fromarray(frame_HW3.contiguous().numpy())
            resized = picture.resize((width_px, height_px), FILTERS[spec.interpolation])
            resized_HW3.copy_(torch.from_numpy(np.array(resized)))
        frames_THW3 = resized_THW3
    top, left = (height_px - spec.crop_height_px) // 2, (width_px - spec.crop_width_px) // 2
    return frames_THW3[:, top : top + spec.crop_height_px, left : left + spec.crop_width_px]


def resized_hw(height_px: int, width_px: int, spec: ImageSpec) -> tuple[int, int]:
    """Size of a picture after the resize, before the crop; the longer side of `shortest_edge` is rounded down."""
    if spec.resize_mode == "exact":
        return spec.resize_height_px, spec.resize_width_px
    edge_px = spec.resize_height_px
    if height_px <= width_px:
        return edge_px, int(edge_px * width_px / height_px)
    return int(edge_px * height_px / width_px), edge_px


def normalise(frames: NDArray[np.uint8] | Tensor, spec: ImageSpec, device: torch.device) -> Tensor:
    """Frames of the encoder's size -> pixels as the network wants them.

    Args:
        frames: (T, crop_height_px, crop_width_px, 3) uint8 RGB.
        spec: the encoder's.
        device: where to compute.

    Returns:
        (T, 3, crop_height_px, crop_width_px) float32, channels last in memory.

    Raises:
        EncoderError: the frames have another size or dtype.
    """
    return standardise(encoder_frames(frames, spec), spec, device).permute(0, 3, 1, 2)


def encoder_frames(frames: NDArray[np.uint8] | Tensor, spec: ImageSpec) -> Tensor:
    """Check that these are RGB frames of the encoder's size; returns them as a tensor without copying.

    Raises:
        EncoderError: the frames have another size or dtype.
    """
    frames_THW3 = as_frames(frames)
    expected = (spec.crop_height_px, spec.crop_width_px)
    if tuple(frames_THW3.shape[1:3]) != expected:
        raise EncoderError(f"frames are {tuple(frames_THW3.shape[1:3])} px, expected {expected}; preprocess() resizes")
    return frames_THW3


def standardise(levels: Tensor, spec: ImageSpec, device: torch.device) -> Tensor:
    """(..., 3) uint8 RGB -> float32 of the same shape, as the preprocessor rescales and normalises it."""
    values = to_device(levels, device).float()
    return values.mul_(spec.rescale).sub_(_kept(spec.mean, device)).div_(_kept(spec.std, device))


@lru_cache(maxsize=32)
def _kept(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """The values on a device; making them there anew would wait for what it computes."""
    return torch.tensor(values, device=device)
