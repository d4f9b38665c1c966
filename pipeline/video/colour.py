"""Colour that libswscale does not do: YCgCo, high dynamic range to standard, transparency over a background.

Legend: H, W rows and columns of a picture.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.video_info import Transfer

REFERENCE_WHITE_NITS = 203.0
"""Diffuse white of HDR production (ITU-R BT.2408): it becomes the white of the standard range before compression."""
PEAK_NITS = 1000.0
"""What is as bright as this, and all that is brighter, becomes full white."""
# Rec. ITU-R BT.2087, annex 2: BT.2020 to BT.709 primaries, linear light.
TO_BT709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
LUMA_2020 = (0.2627, 0.6780, 0.0593)


def ycgco_to_rgb(planes_3HW: NDArray[np.generic], full_range: bool) -> NDArray[np.uint8]:
    """Y, Cg, Co to R, G, B (ITU-T H.273, equations 77 to 80).

    Args:
        planes_3HW: (3, H, W) uint8 Y, Cg (in the place of Cb) and Co.
        full_range: whether Y takes all of 0 to 255.
    """
    luma, green, orange = (plane.astype(np.float32) for plane in planes_3HW)
    green, orange = green - 128, orange - 128
    if not full_range:
        luma, green, orange = (luma - 16) * (255 / 219), green * (255 / 224), orange * (255 / 224)
    rest = luma - green
    rgb_HW3 = np.stack([rest + orange, luma + green, rest - orange], axis=-1)
    rgb: NDArray[np.uint8] = np.clip(np.rint(rgb_HW3), 0, 255).astype(np.uint8)
    return rgb


def over_background(rgba_HW4: NDArray[np.generic], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A picture with transparency over one colour, on the coded values."""
    share = rgba_HW4[..., 3:].astype(np.float32) / 255
    colour = np.asarray(background, dtype=np.float32)
    mixed: NDArray[np.uint8] = np.rint(rgba_HW4[..., :3].astype(np.float32) * share + colour * (1 - share)).astype("u1")
    return mixed


def tonemap(coded_HW3: NDArray[np.generic], transfer: Transfer, *, wide: bool) -> NDArray[np.uint8]:
    """High dynamic range to BT.709.

    To light (PQ: SMPTE ST 2084; HLG: BT.2100 with a display of 1000 nits, system gamma 1.2), over the reference white;
    luminance compressed by Reinhard's extended curve L (1 + L / w^2) / (1 + L), with w the peak over the reference
    white, colour following in proportion; primaries to BT.709, clipped; the curve of BT.709.

    Args:
        coded_HW3: (H, W, 3) uint16 coded RGB of the full range.
        transfer: `pq` or `hlg`.
        wide: whether the primaries are those of BT.2020.

    Returns:
        (H, W, 3) uint8.
    """
    coded = torch.from_numpy(coded_HW3.astype(np.float32)) / 65535
    weights = torch.tensor(LUMA_2020)
    nits = _pq_nits(coded) if transfer == "pq" else _hlg_nits(coded, weights)
    light = nits / REFERENCE_WHITE_NITS
    luminance = (light @ weights)[..., None]
    white = PEAK_NITS / REFERENCE_WHITE_NITS
    light = light * (1 + luminance / white**2) / (1 + luminance)
    if wide:
        light = light @ torch.tensor(TO_BT709).T
    light = light.clamp(0, 1)
    shown = torch.where(light < 0.018, 4.5 * light, 1.099 * light.clamp(min=1e-6) ** 0.45 - 0.099)
    rgb: NDArray[np.uint8] = (shown.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return rgb


def _pq_nits(coded: torch.Tensor) -> torch.Tensor:
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = coded ** (1 / m2)
    return 10000 * ((root - c1).clamp(min=0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg_nits(coded: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = torch.where(coded <= 0.5, coded**2 / 3, (torch.exp((coded - c) / a) + b) / 12)
    luminance = (scene @ weights)[..., None].clamp(min=1e-6)
    return PEAK_NITS * luminance**0.2 * scene
