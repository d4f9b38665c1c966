"""Frames through a video-LLM's vision part: token rows as its language model reads them.

Letters: B token rows, F frames of a token row, h x w pixels, H x W grid of tokens in a row, D channels of a token with
its deepstack features behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.encode.foreign.families import Input
from pipeline.encode.video_llm.families import VisionShape
from pipeline.values import SmartSize
from vtm.encoders import EncoderError, ImageSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLlmGeometry:
    """What goes into a vision part, what comes out, and how it is called; used as `foreign.model.Geometry` is."""

    family: str
    """`model_type` of `transformers`."""
    architecture: str
    """Class of `transformers`."""
    image: ImageSpec
    """Where `smart` is there, of a video of 720 x 1280."""
    smart: SmartSize | None
    """Limits of the size that each video has for itself; None where all have the same."""
    shape: VisionShape
    probe: str
    """`weights.probe_hash` of the projection."""

    @property
    def input(self) -> Input:
        """A token row a pass: no family's tower looks from one row to another."""
        frames = self.shape.tubelet_frames
        return Input(is_video=frames > 1, frames_per_pass=frames, tubelet_frames=frames)

    def grid_hw(self, frame_hw: tuple[int, int]) -> tuple[int, int]:
        """H, W of frames of this size.

        Raises:
            EncoderError: frames of another size are expected.
        """
        expected_hw = self.image.crop_height_px, self.image.crop_width_px
        if self.smart is None and frame_hw != expected_hw:
            raise EncoderError(f"frames are {frame_hw} px, expected {expected_hw}")
        return self.shape.grid_hw(*frame_hw)

    def patches(self, model: nn.Module, pixels_BF3hw: Tensor) -> Tensor:
        """(B, F, 3, h, w) normalised pixels -> (B, 1, H*W, D).

        Raises:
            EncoderError: another number of tokens or channels comes out than the configuration says.
        """
        passes = _TOWER_PASSES if self.shape.stage == "tower" else _PASSES
        tokens_BPD = passes[self.family](model, pixels_BF3hw, self.shape)
        rows, columns = self.shape.grid_hw(*pixels_BF3hw.shape[-2:])
        expected = (len(pixels_BF3hw), rows * columns, self.shape.channels)
        if tuple(tokens_BPD.shape) != expected:
            raise EncoderError(f"{self.architecture} gives {tuple(tokens_BPD.shape)}, expected {expected}")
        return tokens_BPD[:, None]


def pixel_rows(pixels_BF3hw: Tensor, patch_px: int, merge_size: int) -> Tensor:
    """Pixels as rows of patches, those of a token's square together: (B*H*W*merge_size^2, 3*F*patch_px^2).

    As `patchify` of the Qwen2-VL, Qwen3-VL and VideoLLaMA 3 video processors of `transformers`.
    """
    batch, frames, channels, height, width = pixels_BF3hw.shape
    rows, columns = height // patch_px // merge_size, width // patch_px // merge_size
    split = pixels_BF3hw.reshape(batch, frames, channels, rows, merge_size, patch_px, columns, merge_size, patch_px)
    ordered = split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return ordered.reshape(batch * rows * columns * merge_size**2, channels * frames * patch_px**2)


def _grids(pixels_BF3hw: Tensor, patch_px: int) -> Tensor:
    """(B, 3): one token row each, in patches."""
    height, width = pixels_BF3hw.shape[-2:]
    grid = torch.tensor([[1, height // patch_px, width // patch_px]], device=pixels_BF3hw.device)
    return grid.expand(len(pixels_BF3hw), -1)


def _qwen(model: Any, pixels_BF3hw: Tensor, shape: VisionShape) -> Tensor:
    rows = pixel_rows(pixels_BF3hw, shape.patch_px, shape.merge_size)
    output = model.get_video_features(rows, _grids(pixels_BF3hw, shape.patch_px), return_dict=True)
    layers = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
    return torch.cat([torch.stack(tuple(rows)) for rows in layers], dim=-1)


def _video_llama_3(model: Any, pixels_BF3hw: Tensor, shape: VisionShape) -> Tensor:
    rows = pixel_rows(pixels_BF3hw, shape.patch_px, shape.merge_size)
    grids = _grids(pixels_BF3hw, shape.patch_px)
    output = model.get_video_features(rows, grids, torch.full_like(grids[:, 0], shape.merge_size), return_dict=True)
    return torch.stack(tuple(output.pooler_output))


def _llava(model: Any, pixels_BF3hw: Tensor, shape: VisionShape) -> Tensor:
    batch, (rows, columns) = len(pixels_BF3hw), shape.grid_hw(*pixels_BF3hw.shape[-2:])
    # The token rows are the frames of one video. LLaVA-OneVision's newline follows them all and is no token of theirs.
    tokens_ND: Tensor = model.get_video_features(pixels_BF3hw[:, 0][None], return_dict=True).pooler_output[0]
    return tokens_ND[: batch * rows * columns].reshape(batch, -1, tokens_ND.shape[-1])


def _internvl(model: Any, pixels_BF3hw: Tensor, shape: VisionShape) -> Tensor:
    output: Tensor = model.get_image_features(pixels_BF3hw[:, 0], return_dict=True).pooler_output
    return output


def _smolvlm(model: Any, pixels_BF3hw: Tensor, shape: VisionShape) -> Tensor:
    (tokens_ND,) = model.get_image_features(pixels_BF3hw[:, 0][None], return_dict=True).pooler_output
    tokens_BPD: Tensor = tokens_ND.reshape(len(pixels_BF3hw), -1, tokens_ND.shape[-1])
    return tokens_BPD


_PASSES = {
    "internvl": _internvl,
    "llava_next_video": _llava,
    "llava_onevision": _llava,
    "qwen2_5_vl": _qwen,
    "qwen2_vl": _qwen,
    "qwen3_vl": _qwen,
    "smolvlm": _smolvlm,
    "video_llama_3": _video_llama_3,
}


class KeptPatches(nn.Module):
    """In the place of Qwen's merger: the patches of a square side by side, as the merger would read them."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self._patches = patches

    def forward(self, x_NC: Tensor) -> Tensor:
        """(N * patches, C) -> (N, patches * C)."""
        return x_NC.reshape(-1, self._patches * x_NC.shape[-1])


def keep_tower(model: Any, shape: VisionShape) -> None:
    """Take Qwen's mergers out of a model, so that it gives what goes into them, in order."""
    if not hasattr(model, "visual"):
        return
    kept = KeptPatches(shape.merge_size**2)
    model.visual.merger = kept
    if shape.deepstack:
        model.visual.deepstack_merger_list = nn.ModuleList([kept] * shape.deepstack)


def _qwen_tower(model: Any, pixels_BF3hw: Tensor, shape: VisionShape) -> Tensor:
    rows = pixel_rows(pixels_BF3hw, shape.patch_px, shape.merge_size)
    output = model.get_video_features(rows, _grids(pixels_BF3hw, shape.patch_px), return_dict=True)
    side, (height, width) = shape.merge_size, shape.grid_hw(*pixels_BF3hw.shape[-2:])
    squares = torch.stack(tuple(output.pooler_output))
    patches = squares.reshape(len(squares), height // side, width // side, side, side, shape.tower_dim)
    return patches.transpose(2, 3).reshape(len(squares), height * width, shape.tower_dim)


def _video_llama_3_tower(model: Any, pixels_BF3hw: Tensor, shape: VisionShape) -> Tensor:
    grids = _grids(pixels_BF3hw, shape.patch_px)
    rows = pixel_rows(pixels_BF3hw, shape.patch_px, shape.merge_size)
    tokens_ND: Tensor = model.vision_model(
        rows, grids, torch.full_like(grids[:, 0], shape.merge_size)
    ).last_hidden_state
    return tokens_ND.reshape(len(pixels_BF3hw), -1, shape.tower_dim)


def _llava_tower(model: Any, pixels_BF3hw: Tensor, shape: VisionShape) -> Tensor:
    layers = model.config.vision_feature_layer
    states = model.vision_tower(pixels_BF3hw[:, 0], output_hidden_states=True).hidden_states
    chosen = torch.cat([states[layer] for layer in ([layers] if isinstance(layers, int) else layers)], dim=-1)
    return chosen[:, 1:] if model.config.vision_feature_select_strategy == "default" else chosen


def _smolvlm_tower(model: Any, pixels_BF3hw: Tensor, shape: VisionShape) -> Tensor:
    pixels_B3hw = pixels_BF3hw[:, 0]
    height, width = pixels_B3hw.shape[-2] // shape.patch_px, pixels_B3hw.shape[-1] // shape.patch_px
    whole = torch.ones(len(pixels_B3hw), height, width, dtype=torch.bool, device=pixels_B3hw.device)
    output: Tensor = model.vision_model(pixel_values=pixels_B3hw, patch_attention_mask=whole).last_hidden_state
    return output


_TOWER_PASSES = {
    "internvl": _llava_tower,
    "llava_next_video": _llava_tower,
    "llava_onevision": _llava_tower,
    "qwen2_5_vl": _qwen_tower,
    "qwen2_vl": _qwen_tower,
    "qwen3_vl": _qwen_tower,
    "smolvlm": _smolvlm_tower,
    "video_llama_3": _video_llama_3_tower,
}
