"""A checkpoint -> an encoder: frames to pixels, pixels to tokens.

Letters: T or B frames, H x W pixels, N patches, D channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vtm.encoders.checkpoint import PREPROCESSOR, open_checkpoint, read_json
from vtm.encoders.config import VitConfig
from vtm.encoders.errors import EncoderError
from vtm.encoders.families import vit_config
from vtm.encoders.heads import make_head
from vtm.encoders.image import ImageSpec, as_frames, image_spec, resize_and_crop
from vtm.encoders.loading import State, own_keys, present_config, read_state
from vtm.encoders.output import EncoderOutput
from vtm.encoders.saliency import attention_saliency
from vtm.encoders.vit import VisionTransformer


class Encoder(nn.Module):
    """A pretrained vision transformer up to one of its blocks; made by `load_encoder`. Its weights do not train."""

    def __init__(self, config: VitConfig, image: ImageSpec, *, num_blocks: int, final_norm: bool) -> None:
        super().__init__()
        self.config = config
        self.image = image
        self.name = ""
        self.weights_sha256 = ""
        self.vit = VisionTransformer(config, num_blocks=num_blocks)
        self.head = make_head(config) if num_blocks == config.num_blocks else None
        self.norms_tokens = final_norm
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if final_norm or self.head is not None else None
        mean, std = torch.tensor(image.mean), torch.tensor(image.std)
        self.register_buffer("pixel_scale", image.rescale / std, persistent=False)
        self.register_buffer("pixel_offset", -mean / std, persistent=False)

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

    def preprocess(self, frames: NDArray[np.uint8] | Tensor) -> Tensor:
        """Frames of any size, (T, H, W, 3) uint8 RGB -> resized, cropped and normalised pixels, (T, 3, h, w)."""
        return self.normalise(resize_and_crop(frames, self.image))

    def normalise(self, frames: NDArray[np.uint8] | Tensor) -> Tensor:
        """Frames at the encoder's size, (T, h, w, 3) uint8 RGB -> normalised pixels, (T, 3, h, w), on the encoder's device.

        The values are computed in float32, then rounded to the encoder's dtype.

        Raises:
            EncoderError: the frames have another size or dtype.
        """
        frames_THW3 = as_frames(frames)
        expected = (self.image.crop_height_px, self.image.crop_width_px)
        if tuple(frames_THW3.shape[1:3]) != expected:
            raise EncoderError(
                f"frames are {tuple(frames_THW3.shape[1:3])} px, expected {expected}; preprocess() resizes"
            )
        values = frames_THW3.to(self.pixel_scale.device, non_blocking=True).to(self.pixel_scale.dtype)
        return (values * self.pixel_scale + self.pixel_offset).to(self.dtype).permute(0, 3, 1, 2)

    def forward(self, pixels_B3HW: Tensor, *, saliency: bool = False) -> EncoderOutput:
        """Encode a batch of frames.

        Args:
            pixels_B3HW: normalised pixels in the encoder's dtype; any height and width of a patch or more, other grids than
                the checkpoint's interpolate its positions.
            saliency: whether to compute how much the block's attention looks at each patch.
        """
        config, prefix = self.config, self.config.num_prefix
        x_BSD, attention = self.vit(pixels_B3HW)
        normed_BSD = x_BSD if self.norm is None else self.norm(x_BSD)
        tokens_BSD = normed_BSD if self.norms_tokens else x_BSD
        num_patches = x_BSD.shape[1] - prefix
        return EncoderOutput(
            patches=tokens_BSD[:, prefix:],
            keys=attention.keys[:, prefix:],
            cls=tokens_BSD[:, 0] if config.has_cls else None,
            registers=tokens_BSD[:, int(config.has_cls) : prefix] if config.num_registers else None,
            pooled=self.head(normed_BSD) if self.head is not None else None,
            saliency=attention_saliency(attention, num_patches=num_patches, has_cls=config.has_cls)
            if saliency
            else None,
        )


def load_encoder(
    folder_or_id: str | Path,
    *,
    layer: int = -1,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    final_norm: bool | None = None,
) -> Encoder:
    """Load a vision transformer from a folder in the Hugging Face format, or from the hub.

    Args:
        folder_or_id: a folder holding config.json, model.safetensors (or its shards and their index) and
            preprocessor_config.json, or a hub id `owner/name`.
        layer: the block whose output is taken. As `hidden_states` of `transformers` is indexed: 9 is the output of the ninth
            block, counted from 1; -1 that of the last, -2 that of the last but one. Later blocks are neither read nor built.
        revision: branch, tag or commit of a hub id.
        dtype: of the weights and the arithmetic.
        device: where the encoder lives.
        final_norm: whether the tokens pass the network's final norm. Left out: as the family's `last_hidden_state` does for
            the last block (all but CLIP apply it), and not for earlier blocks, as `hidden_states` has them.

    Returns:
        The encoder in evaluation mode; no parameter requires a gradient.

    Raises:
        EncoderError: the checkpoint cannot be found, is of no known family, or has missing or odd tensors; or no such block.
    """
    checkpoint = open_checkpoint(folder_or_id, revision=revision)
    config = vit_config(checkpoint.config())
    image = image_spec(read_json(checkpoint.folder / PREPROCESSOR), config.patch_px)
    keys = own_keys(checkpoint)
    config = present_config(config, keys)
    num_blocks = block_count(layer, config)
    if final_norm is None:
        final_norm = config.norm_tokens and num_blocks == config.num_blocks
    with torch.device("meta"):
        encoder = Encoder(config, image, num_blocks=num_blocks, final_norm=final_norm)
    state = read_state(checkpoint, keys, config, num_blocks=num_blocks, dtype=dtype)
    _place(encoder, state, checkpoint.name)
    encoder.name = checkpoint.name
    encoder.weights_sha256 = checkpoint.weights_sha256()
    return encoder.requires_grad_(False).eval().to(device)


def block_count(layer: int, config: VitConfig) -> int:
    """Blocks up to the output block `layer`; see `load_encoder`."""
    depth = config.num_blocks
    num_blocks = layer if layer > 0 else depth + 1 + layer
    if layer == 0 or not 1 <= num_blocks <= depth:
        raise EncoderError(f"layer {layer}: expected 1 to {depth}, or -1 (last block) down to -{depth}")
    return num_blocks


def _place(encoder: Encoder, state: State, name: str) -> None:
    """Put each tensor where it belongs, and see that none is left on either side."""
    placed = {key if key.startswith(("norm.", "head.")) else f"vit.{key}": tensor for key, tensor in state.items()}
    expected = encoder.state_dict()
    optional = {key for key in placed if key.startswith(("norm.", "head.")) and key not in expected}
    placed = {key: tensor for key, tensor in placed.items() if key not in optional}
    for key in expected.keys() - placed.keys():
        raise EncoderError(f"{name}: the weights lack {key.removeprefix('vit.')}, which config.json's family has")
    for key in placed.keys() - expected.keys():
        raise EncoderError(
            f"{name}: the weights hold {key.removeprefix('vit.')}, for which config.json's family has no place"
        )
    for key, tensor in placed.items():
        if tensor.shape != expected[key].shape:
            if tensor.numel() != expected[key].numel():
                raise EncoderError(
                    f"{name}: {key.removeprefix('vit.')} has shape {tuple(tensor.shape)}, "
                    f"config.json makes it {tuple(expected[key].shape)}"
                )
            placed[key] = tensor.reshape(expected[key].shape)
    encoder.load_state_dict(placed, assign=True)
    mean, std = torch.tensor(encoder.image.mean), torch.tensor(encoder.image.std)
    encoder.pixel_scale, encoder.pixel_offset = encoder.image.rescale / std, -mean / std
