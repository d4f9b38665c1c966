"""SGLang: `{clip}.safetensors`, of which a preformatted video of a request is made, merged tokens and their positions.

The reader is `BaseMultimodalProcessor.process_mm_data` of sgl-project/sglang 0.5.23
(srt/multimodal/processors/base_processor.py:1215): a dict a modality, `{"format": "processor_output", "modality":
"VIDEO", "precomputed_embeddings": (M, D), "video_grid_thw", "input_ids"}`; and qwen_vl.py:531-549, which takes
`mrope_positions` (3, L) and `mrope_position_delta` from it instead of computing them. `request` makes that dict. Read,
not run: SGLang needs a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pipeline.cache.cached_clip import CachedClip
from pipeline.cache.token_cache import TokenCache
from pipeline.errors import SettingsError
from pipeline.export.target import Exported, ExportOptions, new_file, safe_name, write_index

ARRAYS = "torch"
TAKES = ()
COLUMNS = ("tokens", "sizes", "centers", "frame_time_ns")


def export(cache: TokenCache, folder: Path, options: ExportOptions) -> Exported:
    """Write every clip's embeddings, with the centres and times of which positions are made."""
    index, rows = [], 0
    for clip in cache.read(range(len(cache)), COLUMNS):
        name = f"{safe_name(clip.clip_id)}.safetensors"
        with new_file(folder, name) as stream:
            stream.write(safetensors.torch.save(clip_tensors(clip)))
        index.append({"file": name, "clip_id": clip.clip_id, "uri": clip.uri, "rows": len(clip.tokens)})
        rows += len(clip.tokens)
    write_index(folder, index)
    notes = (
        "pipeline.export.sglang.request makes the request's video from a file; the model must be the one whose encoder "
        "filled the cache, after its merger or projector",
    )
    return Exported(format="sglang", items=len(index), rows=rows, notes=notes)


def clip_tensors(clip: CachedClip) -> dict[str, Tensor]:
    """The tensors of one file: (M, D), (1, 3), (M, 3), (M,), (M,)."""
    return {
        "precomputed_embeddings": clip.tokens.contiguous(),
        "video_grid_thw": torch.tensor([clip.grid_thw]),
        "centers": clip.centers.contiguous(),
        "time_s": clip.time_ns.double() / 1e9,
        "sizes": clip.sizes.contiguous(),
    }


def request(
    path: Path,
    *,
    prefix_ids: Sequence[int],
    suffix_ids: Sequence[int],
    video_token_id: int,
    tokens_per_second: float,
    first_s: float = 0.0,
) -> dict[str, Any]:
    """The preformatted video of a request, for one clip between two texts.

    Args:
        path: a file that `export` wrote.
        prefix_ids: token ids of the text before the video, its opening mark included.
        suffix_ids: those after it, its closing mark included.
        video_token_id: the model's placeholder.
        tokens_per_second: steps of the first axis a second, from the model's configuration.
        first_s: video time of position 0 of the first axis: the clip's start where clips are asked about alone.

    Raises:
        SettingsError: a token lies before `first_s`.
    """
    held = safetensors.torch.load_file(path)
    num_tokens = len(held["precomputed_embeddings"])
    time_s = held["time_s"] - first_s
    if time_s.min() < 0:
        raise SettingsError(f"first_s {first_s} is after the first token of {path.name}, at {held['time_s'].min():g} s")
    positions = mrope_positions(held["centers"], time_s, len(prefix_ids), len(suffix_ids), tokens_per_second)
    input_ids = [*prefix_ids, *[video_token_id] * num_tokens, *suffix_ids]
    return {
        "format": "processor_output",
        "modality": "VIDEO",
        "precomputed_embeddings": held["precomputed_embeddings"],
        "video_grid_thw": held["video_grid_thw"],
        "input_ids": torch.tensor(input_ids),
        "mrope_positions": positions,
        "mrope_position_delta": torch.tensor([[int(positions.max()) + 1 - len(input_ids)]]),
    }


def mrope_positions(
    centers_M3: Tensor, time_s_M: Tensor, num_before: int, num_after: int, tokens_per_second: float
) -> Tensor:
    """(3, L) int64: texts count on all axes; tokens lie at their times, and at their centres in steps of the grid.

    The text after the video begins one after the greatest position in it (Qwen2-VL, arXiv:2409.12191, section 2.1).
    """
    before = torch.arange(num_before).expand(3, -1)
    time_M = torch.floor(time_s_M * tokens_per_second + 1e-9).long()
    video = num_before + torch.stack((time_M, centers_M3[:, 1].round().long(), centers_M3[:, 2].round().long()))
    start = int(video.max()) + 1
    after = (start + torch.arange(num_after)).expand(3, -1)
    return torch.cat((before, video, after), dim=1)
