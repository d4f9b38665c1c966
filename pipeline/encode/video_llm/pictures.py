"""The size and normalisation of a video-LLM's frames: from a setting, from its tower, or by its own smart resize."""

from __future__ import annotations

from typing import Any

from pipeline.encode.foreign.layout import patch_px_of
from pipeline.encode.video_llm.families import Fields, VisionShape
from pipeline.smart_resize import smart_resize
from pipeline.values import SmartSize
from vtm.encoders import EncoderError, ImageSpec
from vtm.encoders.image import RESAMPLE

NOMINAL_HW = (720, 1280)
"""The video that stands in the description for all those whose sizes smart resize finds one by one."""

_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_MEAN_STD = {"qwen2_vl": _CLIP, "qwen2_5_vl": _CLIP, "llava_onevision": _CLIP, "llava_next_video": _CLIP} | {
    "internvl": _CLIP
}
"""What processors do where their file is silent; the others' is one half."""
FEWEST_TOKENS, MOST_TOKENS = 128, 768
"""Of a frame after smart resize, where the file is silent."""


def size_of(text: str) -> tuple[int, int]:
    """`HEIGHTxWIDTH` as two numbers.

    Raises:
        EncoderError: it is none.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise EncoderError(f"--size-px {text} is no size: give HEIGHTxWIDTH, for example 336x588")
    return int(parts[0]), int(parts[1])


def frame_spec(
    family: str, shape: VisionShape, fields: Fields, size_px: str | None, smart: SmartSize | None
) -> ImageSpec:
    """What happens to a frame before the vision part.

    Args:
        family: `model_type`.
        shape: of its vision part.
        fields: the preprocessor's file.
        size_px: the user's choice, `HEIGHTxWIDTH`.
        smart: the family's own sizes, where nothing was chosen and any size will do.

    Raises:
        EncoderError: the size does not fit the vision part, or the file has odd values.
    """
    chosen = None if size_px is None else size_of(size_px)
    if shape.side_px is not None:
        return _fixed(family, shape, fields, chosen)
    if chosen is None:
        assert smart is not None
        chosen = smart_resize(NOMINAL_HW, smart)
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


def smart_size(family: str, shape: VisionShape, fields: Fields, clip_frames: int) -> SmartSize:
    """The limits of the family's own smart resize, from its preprocessor's file.

    Args:
        family: `model_type`.
        shape: of its vision part.
        fields: the preprocessor's file.
        clip_frames: frames of a clip: Qwen3-VL's limits are those of all frames of a video together.
    """
    size: Any = fields.get("size")
    size = size if isinstance(size, dict) else {}
    square = shape.factor_px**2
    least = int(fields.get("min_pixels") or size.get("shortest_edge") or FEWEST_TOKENS * square)
    greatest = int(fields.get("max_pixels") or size.get("longest_edge") or MOST_TOKENS * square)
    if family == "qwen3_vl":
        rows = -(-clip_frames // shape.tubelet_frames) * shape.tubelet_frames
        least, greatest = least // rows, greatest // rows
    return SmartSize(factor_px=shape.factor_px, min_pixels=least, max_pixels=max(greatest, square))
