"""How the language model of each family reads a video: which placeholder, in which form, with which words around it.

A token row is one step of the grid in time: a frame, or the two frames of Qwen's temporal patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Modality = Literal["video", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A token row of the video, for the words before its tokens."""

    number: int
    """Among the rows of the joined clips, from 0."""
    time_s: float
    """In the video: the mean of its first and last frame's times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A family's way of reading a video. Texts are those of its processor in `transformers`."""

    mark: str
    """What represents the video in a prompt."""
    chat: str
    """A prompt with the question `{question}`, for tokenizers without a chat template."""
    modality: Modality = "video"
    """Under which key the model takes the tokens, and so which placeholder."""
    as_list: bool = True
    """Whether it takes a list of (M, D), else one tensor (1, M, D)."""
    temporal: Literal["none", "rows", "seconds", "groups"] = "none"
    """What a token's place in time is in its position: nothing (positions are counted), the number of its row,
    seconds times the model's `tokens_per_second`, or nothing within its row's group."""
    newline: bool = False
    """Whether the model's `image_newline` follows the video's tokens."""
    before: Callable[[Row], str] | None = None
    """Words before the tokens of each row, where rows are told apart."""
    after: str = ""
    """Words after them."""
    between: str = ""
    opening: Callable[[int, float], str] | None = None
    """Words before all rows, from their number and the time in seconds at which the last one shows."""
    closing: str = ""
    enclosed: tuple[str, str] = ("", "")
    """Texts around the mark that each row brings itself, and that are taken out around the mark."""

    @property
    def is_mrope(self) -> bool:
        """Whether positions have a time, a row and a column."""
        return self.temporal != "none"


def _clock(time_s: float) -> str:
    return f"{int(time_s // 60):02d}:{int(time_s % 60):02d}"


def _hours(time_s: float) -> str:
    whole = int(time_s)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


_VISION = ("<|vision_start|>", "<|vision_end|>")
_CHATML = "<|im_start|>user\n{video}{{question}}<|im_end|>\n<|im_start|>assistant\n"
_QWEN = _CHATML.format(video=_VISION[0] + "<|video_pad|>" + _VISION[1])
READERS: dict[str, Reader] = {
    "internvl": Reader(
        mark="<video>",
        chat=_CHATML.format(video="<video>\n"),
        modality="image",
        as_list=False,
        before=lambda row: f"Frame{row.number + 1}: <img>",
        after="</img>",
        between="\n",
    ),
    "llava_next_video": Reader(mark="<video>", chat="USER: <video>\n{question} ASSISTANT:", as_list=False),
    "llava_onevision": Reader(
        mark="<video>",
        chat="<|im_start|>user <video>\n{question}<|im_end|><|im_start|>assistant\n",
        as_list=False,
        newline=True,
    ),
    "qwen2_5_vl": Reader(mark="<|video_pad|>", chat=_QWEN, temporal="seconds"),
    "qwen2_vl": Reader(mark="<|video_pad|>", chat=_QWEN, temporal="rows"),
    "qwen3_vl": Reader(
        mark="<|video_pad|>",
        chat=_QWEN,
        temporal="groups",
        before=lambda row: f"<{row.time_s:.1f} seconds>{_VISION[0]}",
        after=_VISION[1],
        enclosed=_VISION,
    ),
    "smolvlm": Reader(
        mark="<video>",
        chat="<|im_start|>User: <video>{question}<end_of_utterance>\nAssistant:",
        modality="image",
        before=lambda row: f"\nFrame from {_clock(row.time_s)}:<fake_token_around_image><global-img>",
        after="<fake_token_around_image>",
        # The processor writes the number of frames in words, by a package of its own; here it is in digits.
        opening=lambda frames, end_s: (
            f"You are provided the following series of {frames} frames from a {_hours(end_s)} [H:MM:SS] video.\n"
        ),
        closing="\n\n",
    ),
    "video_llama_3": Reader(
        mark="<|video_pad|>",
        chat=_CHATML.format(video="<|video_pad|>"),
        before=lambda row: f"Time {row.time_s:.1f}s:",
        between=",",
    ),
}
