"""Picture files, read as people see them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import InputError


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """A picture file, upright: (H, W, 3) uint8 RGB; transparency is left out.

    Raises:
        InputError: it is no picture that Pillow reads, or one of more pixels than Pillow takes for sound.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"--image {path}: no such file") from None
    except (UnidentifiedImageError, IsADirectoryError):
        raise InputError(f"--image {path} is no picture: give a JPEG, PNG, WebP or another that Pillow reads") from None
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"--image {path} cannot be read: {error}") from error
