"""A checkpoint of `transformers` -> its geometry, found without weights, and the model with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pipeline.counted import counted
from pipeline.encode.foreign import library
from pipeline.encode.foreign.families import Input, model_input
from pipeline.encode.foreign.forward import output_of, resolve_layer
from pipeline.encode.foreign.layout import TokenLayout, find_layout, patch_px_of
from pipeline.encode.foreign.pictures import read_pictures
from vtm.encoders import EncoderError, ImageSpec
from vtm.encoders.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What goes into a model, what comes out, and which output is taken."""

    architecture: str
    """Class of `transformers`."""
    image: ImageSpec
    input: Input
    layer: int
    """As `forward.output_of` takes it."""
    layout: TokenLayout

    def grid_hw(self, frame_hw: tuple[int, int]) -> tuple[int, int]:
        """H, W of frames of this size.

        Raises:
            EncoderError: frames of another size are expected.
        """
        expected_hw = self.image.crop_height_px, self.image.crop_width_px
        if frame_hw != expected_hw:
            raise EncoderError(f"frames are {frame_hw} px, expected {expected_hw}")
        return self.layout.grid_hw

    def patches(self, model: nn.Module, pixels_BF3hw: Tensor) -> Tensor:
        """Run B passes of F frames: (B, R, H*W, D), R token rows in time, H x W patch grid."""
        return self.layout.patches(output_of(model, pixels_BF3hw, self.input, self.layer))


def find_geometry(checkpoint: Checkpoint, layer: int) -> Geometry:
    """Read a checkpoint's configuration, and run the model on shapes alone to see what comes out.

    Raises:
        EncoderError: `transformers` does not know it, it takes something else than RGB frames, its output is no grid
            of patches, or it has no such layer.
    """
    config = library.read_config(checkpoint)
    given = model_input(config)
    image = read_pictures(checkpoint, given.is_video)
    model = library.empty_model(config, checkpoint.name)
    crop_hw = image.crop_height_px, image.crop_width_px
    nothing = torch.zeros(1, given.frames_per_pass, 3, *crop_hw, device="meta")
    architecture = type(model).__name__
    what = f"{architecture} cannot take {given.frames_per_pass} x {crop_hw[0]} x {crop_hw[1]} px"
    with torch.inference_mode(), library.in_one_line(what):
        taken = resolve_layer(model, nothing, given, layer)
        shape = tuple(output_of(model, nothing, given, taken).shape)
    layout = find_layout(shape, given, crop_hw, architecture)
    return Geometry(
        architecture=architecture,
        image=replace(image, patch_px=patch_px_of(layout.grid_hw, crop_hw)),
        input=given,
        layer=taken,
        layout=layout,
    )


def load_foreign(checkpoint: Checkpoint, geometry: Geometry, dtype: torch.dtype, device: str) -> nn.Module:
    """The model with its weights, in evaluation mode.

    Raises:
        EncoderError: the weights do not fit the configuration, or lack something that the features depend on.
    """
    model, missing = library.load_model(checkpoint, library.read_config(checkpoint), dtype)
    model = model.to(device)
    if missing:
        size_hw = geometry.image.crop_height_px, geometry.image.crop_width_px
        black = torch.zeros(1, geometry.input.frames_per_pass, 3, *size_hw, dtype=dtype, device=device)
        with library.in_one_line(f"{checkpoint.name}: {geometry.architecture} cannot run in {dtype}"):
            patches = geometry.patches(model, black)
        if not patches.isfinite().all():
            others = f" and {counted(len(missing) - 1, 'more tensor')}" if len(missing) > 1 else ""
            raise EncoderError(f"{checkpoint.name}: the weights lack {missing[0]}{others}, which the features need")
    return model
