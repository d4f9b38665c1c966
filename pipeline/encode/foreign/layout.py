"""Where the patches are in what a model returns.

Letters: B passes of the model, S tokens of its output, R token rows in time, H x W patch grid, N = R*H*W patches,
D channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pipeline.encode.foreign.families import Input
from vtm.encoders import EncoderError

MOST_HALVINGS = 6
"""Of the grid, over the stages of a pyramid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """How to read the patches of one pass out of a model's output."""

    kind: Literal["tokens", "map", "map_channels_last"]
    rows: int
    """R, token rows in time."""
    grid_hw: tuple[int, int]
    dim: int
    """D."""
    prefix: int = 0
    """Tokens before the patches, which are dropped."""
    time_is_last: bool = False
    """Whether the tokens of a place follow each other, not those of a time."""

    def patches(self, output: Tensor) -> Tensor:
        """The model's output -> (B, R, H*W, D) in t, y, x order."""
        batch, places = output.shape[0], self.grid_hw[0] * self.grid_hw[1]
        if self.kind == "map":
            return output.flatten(2).transpose(1, 2)[:, None]
        if self.kind == "map_channels_last":
            return output.flatten(1, 2)[:, None]
        x_BND = output[:, self.prefix :]
        if self.time_is_last:
            return x_BND.reshape(batch, places, self.rows, self.dim).transpose(1, 2)
        return x_BND.reshape(batch, self.rows, places, self.dim)


def find_layout(shape: tuple[int, ...], given: Input, crop_hw: tuple[int, int], name: str) -> TokenLayout:
    """Find the patches in an output of this shape.

    Args:
        shape: (B, S, D), (B, D, H, W) or (B, H, W, D).
        given: how the model takes frames.
        crop_hw: height and width of its pictures in pixels.
        name: of the model, for the error.

    Raises:
        EncoderError: the output is no grid of patches.
    """
    if len(shape) == 4 and not given.is_video:
        if _is_grid(shape[2:], crop_hw):
            return TokenLayout(kind="map", rows=1, grid_hw=(shape[2], shape[3]), dim=shape[1])
        if _is_grid(shape[1:3], crop_hw):
            return TokenLayout(kind="map_channels_last", rows=1, grid_hw=(shape[1], shape[2]), dim=shape[3])
    if len(shape) == 3:
        for halvings in range(1 + MOST_HALVINGS * given.is_pyramid):
            stride_px = (given.patch_px or 1) << halvings
            rows_hw = -(-crop_hw[0] // stride_px), -(-crop_hw[1] // stride_px)
            for grid_hw in ((crop_hw[0] // stride_px, crop_hw[1] // stride_px), rows_hw):
                prefix = shape[1] - given.rows_per_pass * grid_hw[0] * grid_hw[1]
                if 0 not in grid_hw and 0 <= prefix <= given.most_prefix:
                    return TokenLayout(
                        kind="tokens",
                        rows=given.rows_per_pass,
                        grid_hw=grid_hw,
                        dim=shape[2],
                        prefix=prefix,
                        time_is_last=given.order == "yxt",
                    )
    raise EncoderError(
        f"{name}: gives an output of shape {shape[1:]} for pictures of {crop_hw[0]} x {crop_hw[1]} px"
        + (f" and patches of {given.patch_px} px" if given.patch_px else "")
        + ", which is no grid of patches: only models that keep one token a patch, or a feature map, can be merged"
    )


def _is_grid(grid_hw: tuple[int, ...], crop_hw: tuple[int, int]) -> bool:
    """Whether a map of this size can come from such a picture: the same stride down and across."""
    stride_px = crop_hw[0] / grid_hw[0]
    return grid_hw[0] <= crop_hw[0] and abs(crop_hw[1] / stride_px - grid_hw[1]) < 1


def patch_px_of(grid_hw: tuple[int, int], crop_hw: tuple[int, int]) -> int:
    """The side of a square patch that gives this grid; where there is none, nearly."""
    nearest = max(1, min(crop_hw[0] // grid_hw[0], crop_hw[1] // grid_hw[1]))
    fitting = (px for px in range(nearest, 0, -1) if (crop_hw[0] // px, crop_hw[1] // px) == grid_hw)
    return next(fitting, nearest)
