"""What a configuration of `transformers` says of the model's input: pictures or videos, and how they are cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.encode.foreign.library import Config
from vtm.encoders import EncoderError

Order = Literal["tyx", "yxt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """How a model takes frames."""

    is_video: bool
    """Whether it takes (B, frames, 3, H, W), not (B, 3, H, W)."""
    frames_per_pass: int = 1
    """The model's own clip length."""
    tubelet_frames: int = 1
    """Frames of a tubelet."""
    order: Order = "tyx"
    """Which axes of the token sequence run slowest to fastest."""
    patch_px: int | None = None
    """Side of a patch of the first layer, where the configuration names one."""
    is_pyramid: bool = False
    """Whether later stages have coarser grids."""
    most_prefix: int = 2
    """Most tokens that may stand before the patches: cls, a distillation token, registers."""

    @property
    def rows_per_pass(self) -> int:
        """Token rows in time that a pass makes."""
        return self.frames_per_pass // self.tubelet_frames


@dataclass(frozen=True, slots=True)
class _Video:
    """Where a video family keeps its clip length and tubelet, and how it orders its tokens."""

    frames: str
    tubelet: str | None
    order: Order = "tyx"


_REGISTERS = ("num_register_tokens", "n_cls_tokens")
_VIDEO = {
    # TimeSformer attends over time first, and keeps the frames of a place together.
    "timesformer": _Video("num_frames", None, "yxt"),
    "videomae": _Video("num_frames", "tubelet_size"),
    "vivit": _Video("num_frames", "tubelet_size"),
    "vjepa2": _Video("frames_per_clip", "tubelet_size"),
}


def model_input(config: Config) -> Input:
    """Read a configuration.

    Raises:
        EncoderError: the clip length is no multiple of the tubelet.
    """
    vision: Config = getattr(config, "vision_config", config)
    same: dict[str, Any] = {
        # ViViT has its patch's side in the tubelet alone.
        "patch_px": _number(getattr(vision, "patch_size", None) or getattr(vision, "tubelet_size", None), last=True),
        "is_pyramid": hasattr(vision, "depths"),
        "most_prefix": 2
        + sum(_number(getattr(vision, name, 0)) or 0 for name in ("num_register_tokens", "n_cls_tokens")),
    }
    video = _VIDEO.get(vision.model_type)
    if video is None:
        return Input(is_video=False, **same)
    frames = _number(getattr(vision, video.frames))
    tubelet = _number(getattr(vision, video.tubelet)) if video.tubelet else 1
    if not frames or not tubelet or frames % tubelet:
        raise EncoderError(f"config.json: {video.frames} {frames} is no multiple of {video.tubelet} {tubelet}")
    return Input(is_video=True, frames_per_pass=frames, tubelet_frames=tubelet, order=video.order, **same)


def _number(value: object, *, last: bool = False) -> int | None:
    """A whole number, or one of a list of them: `patch_size` and `tubelet_size` come as either."""
    if isinstance(value, (list, tuple)) and value:
        value = value[-1 if last else 0]
    return value if isinstance(value, int) else None
