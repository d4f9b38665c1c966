"""What is to be known of each family of video-LLMs: where its vision part is on disk, and what grid of tokens it makes.

A token row is one step of the grid in time: a frame, or the two frames of Qwen's temporal patch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.encode.foreign.library import Config
from pipeline.settings import VisionStage
from vtm.encoders import EncoderError

Fields = Mapping[str, Any]
"""A preprocessor's file, parsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionShape:
    """What goes into a vision part, and what comes out of its merger or projector."""

    dim: int
    """D: channels that the language model reads, of the tokens alone."""
    tower_dim: int
    """Channels before the merger or projector."""
    patch_px: int
    merge_size: int
    """Patches along a side of the square of a token that the language model reads."""
    stage: VisionStage = "projected"
    merges_in_tower: bool = False
    """Whether the tower's own output is of these squares, not of patches."""
    tubelet_frames: int = 1
    deepstack: int = 0
    """Further D channels a token: features of earlier blocks that are added inside the language model."""
    side_px: int | None = None
    """Side of the square pictures that the tower's positions are made for; None: any size will do."""
    rounds_up: bool = False
    """Whether a last row or column of patches that does not fill a token's square still makes tokens."""

    @property
    def factor_px(self) -> int:
        """Side of the square of pixels under a token that the language model reads."""
        return self.patch_px * self.merge_size

    @property
    def channels(self) -> int:
        """Of what comes out at the stage: the tower's, or D and the deepstack features side by side."""
        return self.tower_dim if self.stage == "tower" else self.dim * (1 + self.deepstack)

    @property
    def token_side(self) -> int:
        """Patches along a side of the square of a token that comes out at the stage."""
        return 1 if self.stage == "tower" and not self.merges_in_tower else self.merge_size

    def grid_hw(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Rows and columns of tokens in a frame, at the stage."""
        patches, side = (height_px // self.patch_px, width_px // self.patch_px), self.token_side
        if self.rounds_up:
            return math.ceil(patches[0] / side), math.ceil(patches[1] / side)
        return patches[0] // side, patches[1] // side


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLlmFamily:
    """A `model_type` of `transformers`."""

    parts: tuple[str, ...]
    """First parts of its vision tensors' names, without `model.`: the tower, the merger or projector."""
    probe: str
    """The projection's last weight, by which a model in memory is told from another one."""
    shape: Callable[[Config, Fields], VisionShape]
    """Read off the configuration and the preprocessor's file."""


def _qwen_shape(config: Config, fields: Fields) -> VisionShape:
    vision = config.vision_config
    return VisionShape(
        dim=config.get_text_config().hidden_size,
        # Qwen2-VL calls the language model's width the hidden size.
        tower_dim=vision.embed_dim if hasattr(vision, "embed_dim") else vision.hidden_size,
        patch_px=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        tubelet_frames=vision.temporal_patch_size,
        deepstack=len(getattr(vision, "deepstack_visual_indexes", ())),
    )


def _video_llama_3_shape(config: Config, fields: Fields) -> VisionShape:
    # The merge size comes with the pixels: 2 for videos, where the processor says nothing else.
    return VisionShape(
        dim=config.get_text_config().hidden_size,
        tower_dim=config.vision_config.hidden_size,
        patch_px=config.vision_config.patch_size,
        merge_size=int(fields.get("merge_size") or 2),
        merges_in_tower=True,
    )


def _llava_onevision_shape(config: Config, fields: Fields) -> VisionShape:
    # `apply_pooling` halves the grid of each frame, rounding up.
    return _square_shape(config, merge_size=2, rounds_up=True)


def _llava_next_video_shape(config: Config, fields: Fields) -> VisionShape:
    return _square_shape(config, merge_size=config.spatial_pool_stride)


def _internvl_shape(config: Config, fields: Fields) -> VisionShape:
    return _square_shape(config, merge_size=round(1 / config.downsample_ratio))


def _smolvlm_shape(config: Config, fields: Fields) -> VisionShape:
    return _square_shape(config, merge_size=config.scale_factor)


def _square_shape(config: Config, merge_size: int, rounds_up: bool = False) -> VisionShape:
    layers = getattr(config, "vision_feature_layer", -1)
    return VisionShape(
        dim=config.get_text_config().hidden_size,
        tower_dim=config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers)),
        patch_px=_side(config.vision_config.patch_size),
        merge_size=merge_size,
        side_px=_side(config.vision_config.image_size),
        rounds_up=rounds_up,
    )


def _side(size: Any) -> int:
    """One side of a square, given as a number or as two equal ones.

    Raises:
        EncoderError: it is no square.
    """
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise EncoderError(f"config.json: the vision tower takes {size} px, expected a square")
    return int(sides.pop())


_LLAVA = ("vision_tower", "multi_modal_projector", "image_newline")
_PROJECTOR = "multi_modal_projector.linear_2.weight"
VIDEO_LLMS: dict[str, VideoLlmFamily] = {
    "internvl": VideoLlmFamily(parts=_LLAVA[:2], probe=_PROJECTOR, shape=_internvl_shape),
    "llava_next_video": VideoLlmFamily(parts=_LLAVA, probe=_PROJECTOR, shape=_llava_next_video_shape),
    "llava_onevision": VideoLlmFamily(parts=_LLAVA, probe=_PROJECTOR, shape=_llava_onevision_shape),
    "qwen2_5_vl": VideoLlmFamily(parts=("visual",), probe="visual.merger.mlp.2.weight", shape=_qwen_shape),
    "qwen2_vl": VideoLlmFamily(parts=("visual",), probe="visual.merger.mlp.2.weight", shape=_qwen_shape),
    "qwen3_vl": VideoLlmFamily(parts=("visual",), probe="visual.merger.linear_fc2.weight", shape=_qwen_shape),
    "smolvlm": VideoLlmFamily(
        parts=("vision_model", "connector"), probe="connector.modality_projection.proj.weight", shape=_smolvlm_shape
    ),
    "video_llama_3": VideoLlmFamily(
        parts=("vision_model", "projector"), probe="projector.readout.2.weight", shape=_video_llama_3_shape
    ),
}
