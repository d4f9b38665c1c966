"""Pictures and colours for the page: WebP in data addresses, and principal components as RGB."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 70


def data_uri(rgb_HW3: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) as WebP in a data address."""
    buffer = io.BytesIO()
    Image.fromarray(rgb_HW3).save(buffer, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def base64_of(array: NDArray[np.generic]) -> str:
    """The bytes of an array, C order, little endian."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def principal_axes(tokens_MD: NDArray[np.float32], weights_M: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean and the three principal axes of weighted tokens, (4, D): mean first."""
    mean_D = np.average(tokens_MD, axis=0, weights=weights_M)
    centred_MD = (tokens_MD - mean_D) * np.sqrt(weights_M / weights_M.sum())[:, None]
    _, _, axes = np.linalg.svd(centred_MD, full_matrices=False)
    axes_3D = np.zeros((3, tokens_MD.shape[1]), np.float32)
    axes_3D[: min(3, len(axes))] = axes[:3]
    # A fixed sign: the largest entry of each axis is positive.
    signs = np.sign(axes_3D[np.arange(3), np.abs(axes_3D).argmax(axis=1)])
    return np.concatenate([mean_D[None], axes_3D * np.where(signs == 0, 1, signs)[:, None]]).astype(np.float32)


def component_colours(
    tokens_MD: NDArray[np.float32], axes_4D: NDArray[np.float32], range_23: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The first three principal components as red, green and blue.

    Args:
        tokens_MD: Tokens.
        axes_4D: From `principal_axes`.
        range_23: Lowest and highest value of each component; None: the 2nd and 98th percentile of these tokens.

    Returns:
        (M, 3) uint8 colours, and the (2, 3) range, to colour other tokens alike.
    """
    components_M3 = (tokens_MD - axes_4D[0]) @ axes_4D[1:].T
    if range_23 is None:
        range_23 = np.percentile(components_M3, [2, 98], axis=0).astype(np.float32)
    width_3 = np.maximum(range_23[1] - range_23[0], 1e-6)
    return (((components_M3 - range_23[0]) / width_3).clip(0, 1) * 255).astype(np.uint8), range_23
