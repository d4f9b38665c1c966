"""The size and normalisation of a video-LLM's frames: from a setting, from its tower, or by its own smart resize."""

from __future__ import annotations

import math
from typing import Any

from pipeline.encode.foreign.layout import patch_px_of
from pipeline.encode.video_llm.families import Fields, VisionShape
from vtm.encoders import EncoderError, ImageSpec
from vtm.encoders.image import RESAMPLE

NOMINAL_HW = (720, 1280)
"""Frames of a run have one size: smart resize starts from this one, wide as most videos are."""

_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_MEAN_STD = {"qwen2_vl": _CLIP, "qwen2_5_vl": _CLIP, "llava_onevision": _CLIP, "llava_next_video": _CLIP} | {
    "internvl": _CLIP
}
"""What processors do where their file is silent; the others' is one half."""
_TOKENS = {"qwen3_vl": (128, 768), "qwen2_vl": (128, 768), "qwen2_5_vl": (128, 768), "video_llama_3": (128, 768)}
"""Fewest and most squares of patches that smart resize leaves, where the file is silent."""


def size_of(text: str) -> tuple[int, int]:
    """`HEIGHTxWIDTH` as two numbers.

    Raises:
        EncoderError: it is none.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise EncoderError(f"--size-px {text} is no size: give HEIGHTxWIDTH, for example 336x588")
    return int(parts[0]), int(parts[1])


def frame_spec(family: str, shape: VisionShape, fields: Fields, size_px: str | None, clip_frames: int) -> ImageSpec:
    """What happens to a frame before the vision part.

    Args:
        family: `model_type`.
        shape: of its vision part.
        fields: the preprocessor's file.
        size_px: the user's choice, `HEIGHTxWIDTH`.
        clip_frames: frames of a clip, over which Qwen3-VL's processor counts its pixels.

    Raises:
        EncoderError: the size does not fit the vision part, or the file has odd values.
    """
    chosen = None if size_px is None else size_of(size_px)
    if shape.side_px is not None:
        return _fixed(family, shape, fields, chosen)
    if chosen is None:
        chosen = _smart(family, shape, fields, clip_frames)
    factor = shape.factor_px
    if chosen[0] % factor or chosen[1] % factor:
        near = tuple(max(factor, round(side / factor) * factor) for side in chosen)
        raise EncoderError(
            f"--size-px {size_px}: both sides must be multiples of {factor}, a token's square of pixels: "
            f"try {near[0]}x{near[1]}"
        )
    return _spec(family, shape, fields, chosen, chosen)


def _fixed(family: str, shape: VisionShape, fields: Fields, chosen: tuple[int, int] | None) -> ImageSpec:
    assert shape.side_px is not None
    square = shape.side_px, shape.side_px
    if chosen not in (None, square):
        raise EncoderError(
            f"--size-px: the vision tower of {family} takes {square[0]}x{square[1]} pixels and no others: leave it out"
        )
    size = fields.get("size")
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    if fields.get("do_center_crop") and isinstance(edge, int):
        return _spec(family, shape, fields, (edge, edge), square, shortest_edge=True)
    return _spec(family, shape, fields, square, square)


def _spec(
    family: str,
    shape: VisionShape,
    fields: Fields,
    resize_hw: tuple[int, int],
    crop_hw: tuple[int, int],
    shortest_edge: bool = False,
) -> ImageSpec:
    mean, std = _MEAN_STD.get(family, _HALF)
    return ImageSpec(
        resize_mode="shortest_edge" if shortest_edge else "exact",
        resize_height_px=resize_hw[0],
        resize_width_px=resize_hw[1],
        crop_height_px=crop_hw[0],
        crop_width_px=crop_hw[1],
        # The video processors of transformers take bicubic where Lanczos (1) is asked for.
        interpolation=RESAMPLE.get(fields.get("resample") or 3, "bicubic"),
        mean=_three(fields, "image_mean", mean),
        std=_three(fields, "image_std", std),
        rescale=float(fields.get("rescale_factor") or 1 / 255),
        patch_px=patch_px_of(shape.grid_hw(*crop_hw), crop_hw),
    )


def _three(fields: Fields, name: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    value: Any = fields.get(name) or default
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise EncoderError(f"the preprocessor's {name} is {value!r}, expected three numbers")
    return float(value[0]), float(value[1]), float(value[2])


def _smart(family: str, shape: VisionShape, fields: Fields, clip_frames: int) -> tuple[int, int]:
    """The family's own smart resize of a nominal frame, by the limits of its preprocessor."""
    size: Any = fields.get("size")
    size = size if isinstance(size, dict) else {}
    square = shape.factor_px**2
    fewest, most = (count * square for count in _TOKENS[family])
    least = int(fields.get("min_pixels") or size.get("shortest_edge") or fewest)
    greatest = int(fields.get("max_pixels") or size.get("longest_edge") or most)
    if family == "qwen3_vl":
        # Its limits are those of all frames together, counted in whole token rows.
        rows = -(-clip_frames // shape.frames_per_token_row) * shape.frames_per_token_row
        least, greatest = least // rows, max(greatest // rows, square)
    return smart_resize(*NOMINAL_HW, shape.factor_px, least, greatest)


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Sides that are multiples of `factor`, near the picture's shape, with an area between the limits.

    As `transformers.models.qwen2_vl.image_processing_qwen2_vl.smart_resize`.
    """
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / beta / factor) * factor)
        columns = max(factor, math.floor(width / beta / factor) * factor)
    elif rows * columns < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        rows, columns = math.ceil(height * beta / factor) * factor, math.ceil(width * beta / factor) * factor
    return rows, columns
