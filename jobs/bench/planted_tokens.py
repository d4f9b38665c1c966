"""Frames of planted clips to tokens of a real encoder, on the clips' own coarse grid.

Letters: T frames, N tokens of a frame, C channels, H x W grid.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from jobs.bench.planted import Encode, EncodedFrames, Frames, PlantedLayout
from vtm import Encoder
from vtm.encoders.image import normalise


def token_encoder(encoder: Encoder, layout: PlantedLayout) -> Encode:
    """Frames to the tokens of the layout: the encoder's patches at that size, averaged to the layout's grid."""
    side_px, patch_px = layout.side_px, encoder.image.patch_px
    image = replace(
        encoder.image,
        resize_height_px=side_px,
        resize_width_px=side_px,
        crop_height_px=side_px,
        crop_width_px=side_px,
    )

    def on_layout(values_TNC: Tensor) -> Tensor:
        grid_TCHW = values_TNC.transpose(1, 2).unflatten(2, (side_px // patch_px, -1))  # type: ignore[no-untyped-call]
        pooled_TCHW = torch.nn.functional.avg_pool2d(grid_TCHW, layout.token_px // patch_px)
        return pooled_TCHW.flatten(2).transpose(1, 2).float().cpu().clone()

    @torch.inference_mode()
    def encode(frames: Frames) -> EncodedFrames:
        pixels = normalise(frames, image, encoder.device).to(encoder.dtype)
        outputs = [encoder(part, saliency=True) for part in torch.split(pixels, 16)]
        patches_TNC = torch.cat([out.patches for out in outputs])
        saliency_TN = torch.cat([out.saliency for out in outputs if out.saliency is not None])
        return EncodedFrames(on_layout(patches_TNC), on_layout(saliency_TN[..., None])[..., 0])

    return encode
