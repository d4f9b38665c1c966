"""The size that follows a video's shape, as Qwen-VL's processors choose it: pure numbers."""

from __future__ import annotations

import math

from pipeline.values import SmartSize

LONGEST = 200
"""Most times that a picture is as long as it is wide."""


def smart_resize(shown_hw: tuple[int, int], size: SmartSize) -> tuple[int, int]:
    """Sides that are multiples of the factor, near the picture's shape, with an area between the limits.

    As `smart_resize` of `transformers.models.qwen2_vl.image_processing_qwen2_vl`, which refuses pictures more than 200
    times as long as they are wide; here these become so many times as long.
    """
    factor = size.factor_px
    height, width = (min(side, LONGEST * min(shown_hw)) for side in shown_hw)
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > size.max_pixels:
        beta = math.sqrt(height * width / size.max_pixels)
        rows = max(factor, math.floor(height / beta / factor) * factor)
        columns = max(factor, math.floor(width / beta / factor) * factor)
    elif rows * columns < size.min_pixels:
        beta = math.sqrt(size.min_pixels / (height * width))
        rows, columns = math.ceil(height * beta / factor) * factor, math.ceil(width * beta / factor) * factor
    return rows, columns
