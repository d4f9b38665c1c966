"""What the same prompt is with pixels: the models' own way, for comparison. Patches are cut here by plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.plan.clips import at_grid_times
from pipeline.replay import decode_again
from pipeline.shards.run_folder import read_state
from tests.pipeline.encode.video_llm_checkpoints import MAKERS

MEAN_STD = {
    "llava_next_video": ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28)),
    "internvl": ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28)),
}
EVEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
PATCH, MERGE = 4, 2


def frames_of(out: Path, clip_indices: Sequence[int], *, even: bool) -> NDArray[np.uint8]:
    """The frames of clips as they were decoded for the encoder; two by two for models that take them so."""
    state = read_state(out)
    (video,) = state.plan.videos.values()
    parts = []
    for index in clip_indices:
        clip = decode_again(state, video, index)
        frames = at_grid_times(clip).frames if even else clip.frames
        parts += [frames, frames[-1:]] if even and len(frames) % 2 else [frames]
    return np.concatenate(parts)


def pixel_inputs(family: str, frames: NDArray[np.uint8], input_ids: torch.Tensor, fps: Fraction) -> dict[str, Any]:
    """Keyword arguments of a model of this family, with pixels."""
    mean, std = (np.array(v, dtype=np.float32) for v in MEAN_STD.get(family, ((0.5,) * 3, (0.5,) * 3)))
    pixels = torch.from_numpy((frames.astype(np.float32) / 255 - mean) / std).permute(0, 3, 1, 2)
    same: dict[str, Any] = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    if family == "internvl":
        return same | {"pixel_values": pixels}
    if family == "smolvlm":
        return same | {"pixel_values": pixels[None]}
    if family.startswith("llava"):
        return same | {"pixel_values_videos": pixels[None]}
    per_row = 2 if family in EVEN else 1
    grid = torch.tensor([[len(frames) // per_row, pixels.shape[2] // PATCH, pixels.shape[3] // PATCH]])
    same |= {"pixel_values_videos": _patches(pixels, per_row), "video_grid_thw": grid}
    if family == "video_llama_3":
        kept = torch.ones(int(grid.prod()) // MERGE**2, dtype=torch.bool)
        return same | {"video_merge_sizes": torch.tensor([MERGE]), "video_compression_mask": kept}
    same["mm_token_type_ids"] = (input_ids == 291).int() * 2
    return same | ({"second_per_grid_ts": [2 / float(fps)]} if family == "qwen2_5_vl" else {})


def _patches(pixels: torch.Tensor, per_row: int) -> torch.Tensor:
    found = []
    _, _, height, width = pixels.shape
    square = PATCH * MERGE
    for t in range(0, len(pixels), per_row):
        for top in range(0, height, square):
            for left in range(0, width, square):
                for y in range(top, top + square, PATCH):
                    for x in range(left, left + square, PATCH):
                        patch = pixels[t : t + per_row, :, y : y + PATCH, x : x + PATCH]
                        found.append(patch.transpose(0, 1).flatten())
    return torch.stack(found)


assert set(EVEN) < set(MAKERS)
