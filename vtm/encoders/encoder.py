"""Frames -> pixels -> tokens: the encoder that `load.load_encoder` makes.

Letters: T or B frames, H x W pixels, N patches, S tokens, D channels.
"""

from __future__ import annotations

import math
from functools import cached_property, partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vtm.encoders.checkpoint.files import Checkpoint
from vtm.encoders.compress import encode_merging
from vtm.encoders.config import VitConfig
from vtm.encoders.heads import make_head
from vtm.encoders.image import ImageSpec, normalise, resize_and_crop
from vtm.encoders.output import EncoderOutput
from vtm.encoders.saliency import attention_saliency
from vtm.encoders.threads import map_on_threads
from vtm.encoders.vit import Block, VisionTransformer
from vtm.errors import EncoderError
from vtm.tome import removal_schedule

CPU_ROWS = 520
"""Tokens that pass a product together on one thread, as far as whole frames fit: fewer wait for the weights, more leave
the core's cache."""


class Encoder(nn.Module):
    """A pretrained vision transformer up to one of its blocks; made by `load_encoder`. Its weights do not train."""

    def __init__(
        self,
        config: VitConfig,
        image: ImageSpec,
        *,
        num_blocks: int,
        final_norm: bool,
        encoder_keep: float = 1.0,
        pooled: bool = False,
        name: str = "",
    ) -> None:
        super().__init__()
        self.config = config
        self.image = image
        self.name = name
        self.checkpoint: Checkpoint | None = None
        self.final_norm = final_norm
        self.encoder_keep = encoder_keep
        self.vit = VisionTransformer(config, num_blocks=num_blocks, grid_hw=image.grid_hw)
        self.later = nn.ModuleList(Block(config) for _ in range(config.num_blocks - num_blocks) if pooled)
        self.head = make_head(config) if pooled or num_blocks == config.num_blocks else None
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if final_norm or self.head is not None else None

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weight files' content, hex, read when first asked for; empty for weights of no file."""
        return "" if self.checkpoint is None else self.checkpoint.weights_sha256()

    @property
    def dim(self) -> int:
        """D, channels of a token."""
        return self.config.dim

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patches of one frame, rows and columns."""
        return self.image.grid_hw

    @property
    def dtype(self) -> torch.dtype:
        """What the arithmetic is done in."""
        return self.vit.patch.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the arithmetic is done."""
        return self.vit.patch.weight.device

    def preprocess(self, frames: NDArray[np.uint8] | Tensor) -> Tensor:
        """Frames of any size, (T, H, W, 3) uint8 RGB -> resized, cropped and normalised pixels, (T, 3, h, w)."""
        return self.normalise(resize_and_crop(frames, self.image))

    def normalise(self, frames: NDArray[np.uint8] | Tensor) -> Tensor:
        """Frames at the encoder's size, (T, h, w, 3) uint8 RGB -> normalised pixels, (T, 3, h, w).

        The values are computed in float32 on the encoder's device, then rounded to its dtype.

        Raises:
            EncoderError: the frames have another size or dtype.
        """
        return normalise(frames, self.image, self.device).to(self.dtype)

    def forward(self, pixels_B3HW: Tensor, *, saliency: bool = False) -> EncoderOutput:
        """Encode a batch of frames.

        On a CPU a few frames at a time are one thread's work, on as many threads as torch may use: a frame's tokens
        depend neither on the batch nor on the number of threads.

        Args:
            pixels_B3HW: normalised pixels in the encoder's dtype; height and width of a patch or more. For another grid
                than `grid_hw` the checkpoint's positions are interpolated.
            saliency: whether to compute the block's attention on each patch.

        Raises:
            EncoderError: there is no frame.
        """
        if pixels_B3HW.dim() != 4 or 0 in pixels_B3HW.shape:
            raise EncoderError(f"pixels are (B, 3, h, w) of one frame or more, got {tuple(pixels_B3HW.shape)}")
        encode = partial(self._encode, saliency=saliency)
        if pixels_B3HW.device.type != "cpu":
            return encode(pixels_B3HW)
        return EncoderOutput.stack(map_on_threads(encode, torch.split(pixels_B3HW, self._frames_at_once(pixels_B3HW))))

    def _frames_at_once(self, pixels_B3HW: Tensor) -> int:
        grid_hw = self.vit.grid_of(pixels_B3HW)
        tokens = self.config.num_prefix + grid_hw[0] * grid_hw[1] - sum(self.removals(grid_hw))
        return max(1, CPU_ROWS // tokens)

    def _encode(self, pixels_B3HW: Tensor, *, saliency: bool) -> EncoderOutput:
        config, num_prefix = self.config, self.config.num_prefix
        removals = self.removals(self.vit.grid_of(pixels_B3HW))
        merged = encode_merging(self.vit, pixels_B3HW, removals) if any(removals) else None
        x_BSD, attention = (merged.tokens, merged.attention) if merged else self.vit(pixels_B3HW)
        tokens_BSD = self.norm(x_BSD) if self.final_norm and self.norm is not None else x_BSD
        num_tokens = x_BSD.shape[1] - num_prefix
        return EncoderOutput(
            patches=tokens_BSD[:, num_prefix:],
            keys=attention.plain_keys[:, num_prefix:],
            cls=tokens_BSD[:, 0] if config.has_cls else None,
            registers=tokens_BSD[:, int(config.has_cls) : num_prefix] if config.num_registers else None,
            pooled=self._pooled(x_BSD, self.vit.grid_of(pixels_B3HW)),
            saliency=attention_saliency(attention.queries, attention.keys, num_tokens, has_cls=config.has_cls)
            if saliency
            else None,
            plan=merged.plan if merged else None,
            sizes=merged.sizes if merged else None,
        )

    def _pooled(self, x_BSD: Tensor, grid_hw: tuple[int, int]) -> Tensor | None:
        """The image embedding, by way of the blocks after the output block."""
        if self.head is None or self.norm is None:
            return None
        for block in self.later:
            x_BSD = block(x_BSD, self.vit.rotary(grid_hw))
        return cast(Tensor, self.head(self.norm(x_BSD)))

    def removals(self, grid_hw: tuple[int, int]) -> tuple[int, ...]:
        """How many of a frame's tokens each block but the last removes, for `encode_merging`.

        Early merges save most, and each costs a matching: the first third of the blocks merges, and more only where
        halving in each of them leaves too many.

        Raises:
            MergeError: even halving in every block leaves too many.
        """
        if self.encoder_keep == 1:
            return ()
        blocks = len(self.vit.blocks) - 1
        halvings = math.ceil(-math.log2(self.encoder_keep)) if 0 < self.encoder_keep < 1 else 0
        merging = min(blocks, max(math.ceil(blocks / 3), halvings))
        return removal_schedule(grid_hw[0] * grid_hw[1], self.encoder_keep, merging) + (0,) * (blocks - merging)
