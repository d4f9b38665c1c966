"""Frames of a benchmark: whole pictures squeezed to a square."""

from __future__ import annotations

from pipeline.values import PictureSpec


def square(side_px: int) -> PictureSpec:
    """Any picture to side_px x side_px pixels, nothing cropped."""
    return PictureSpec(
        resize_mode="exact",
        resize_height_px=side_px,
        resize_width_px=side_px,
        crop_height_px=side_px,
        crop_width_px=side_px,
    )
