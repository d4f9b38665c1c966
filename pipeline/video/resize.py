"""Full-size RGB pictures to the encoder's size with Pillow's antialiased filters.

torch's uint8 kernels take Pillow's steps (rows, rounding, columns, rounding) with weights of 16 bits for Pillow's 22:
about one value in 300 differs by one level, at a tenth of the time. Who needs the last level asks for Pillow itself.

Legend: H, W rows and columns of a picture, C its three channels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipeline.smart_resize import smart_resize
from pipeline.values import PictureSpec


def fitted(spec: PictureSpec, shown_hw: tuple[int, int] | None) -> PictureSpec:
    """The spec with the size that it has for a video of this height and width."""
    if spec.smart is None or shown_hw is None:
        return spec
    height_px, width_px = smart_resize(shown_hw, spec.smart)
    return replace(
        spec,
        resize_height_px=height_px,
        resize_width_px=width_px,
        crop_height_px=height_px,
        crop_width_px=width_px,
        smart=None,
    )


def resized_shape(shown_hw: tuple[int, int], spec: PictureSpec) -> tuple[int, int]:
    """(height, width) after the resize and before the crop.

    The longer side is rounded down, as the Pillow image processors of `transformers` do (get_resize_output_image_size).
    """
    if spec.resize_mode == "exact":
        return spec.resize_height_px, spec.resize_width_px
    height, width = shown_hw
    short = spec.resize_height_px
    return (short, short * width // height) if height <= width else (short * height // width, short)


def resize_picture(rgb_HWC: NDArray[np.uint8], shown_hw: tuple[int, int], spec: PictureSpec) -> NDArray[np.uint8]:
    """Resize and centre-crop one picture; pixels that are not square become so in the same step.

    Args:
        rgb_HWC: (H, W, 3) upright picture.
        shown_hw: its size in square pixels.
        spec: the encoder's preprocessing.

    Returns:
        (crop_height_px, crop_width_px, 3) uint8.
    """
    size = resized_shape(shown_hw, spec)
    if spec.resizer == "pillow":
        return centre_crop(_resize_by_pillow(rgb_HWC, size, spec), spec.crop_height_px, spec.crop_width_px)
    # A channels-last view: torch has a fast uint8 kernel for it. It is known as one by the stride of its first axis,
    # which is that of a whole picture where that axis is made first; the result then is channels-last, too.
    x_1CHW = torch.from_numpy(rgb_HWC)[None].permute(0, 3, 1, 2)
    y_1CHW = F.interpolate(x_1CHW, size=size, mode=spec.interpolation, antialias=True, align_corners=False)
    resized_HWC: NDArray[np.uint8] = y_1CHW[0].permute(1, 2, 0).numpy()
    return centre_crop(resized_HWC, spec.crop_height_px, spec.crop_width_px)


def _resize_by_pillow(rgb_HWC: NDArray[np.uint8], size: tuple[int, int], spec: PictureSpec) -> NDArray[np.uint8]:
    # Imported here: only runs that ask for it pay for it.
    from PIL import Image

    height, width = size
    method = Image.Resampling[spec.interpolation.upper()]
    return np.asarray(Image.fromarray(rgb_HWC).resize((width, height), method))


def centre_crop(picture_HWC: NDArray[np.uint8], height_px: int, width_px: int) -> NDArray[np.uint8]:
    """The middle of a picture; where it is smaller than the crop, black around it, as `transformers` does."""
    height, width = picture_HWC.shape[:2]
    if height < height_px or width < width_px:
        grown_h, grown_w = max(height, height_px), max(width, width_px)
        top, left = -((height - grown_h) // 2), -((width - grown_w) // 2)
        padded = np.zeros((grown_h, grown_w, 3), dtype=np.uint8)
        padded[top : top + height, left : left + width] = picture_HWC
        picture_HWC, height, width = padded, grown_h, grown_w
    top, left = (height - height_px) // 2, (width - width_px) // 2
    return picture_HWC[top : top + height_px, left : left + width_px]
