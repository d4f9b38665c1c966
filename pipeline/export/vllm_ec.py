"""vLLM's encoder cache: `{mm_hash}/encoder_cache.safetensors`, tensor `ec_cache` (N, D).

The reader is `ECExampleConnector.start_load_caches` of vllm-project/vllm 0.33
(vllm/distributed/ec_transfer/ec_connector/example_connector.py): it loads `ec_cache` from the folder named by the
item's mm_hash, which is the caller's uuid where there are no processor arguments. The scheduler asks for
grid.prod() // merge² rows of an item, and no other number can be said: merged tokens do not fit, unless each is
repeated for its patches. Read, not run: vLLM needs a GPU.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch

from pipeline.cache.token_cache import TokenCache
from pipeline.counted import counted
from pipeline.errors import SettingsError
from pipeline.export.target import Exported, ExportOptions, new_file, safe_name, write_index

ARRAYS = "torch"
TAKES = ("spread",)
COLUMNS = ("tokens", "group")


def export(cache: TokenCache, folder: Path, options: ExportOptions) -> Exported:
    """Write every clip's rows in order of t, y, x.

    Raises:
        SettingsError: clips are merged, and are not to be spread.
    """
    if not options.spread:
        check_unmerged(cache)
    index, rows = [], 0
    for clip in cache.read(range(len(cache)), COLUMNS):
        mm_hash = safe_name(clip.clip_id)
        tokens_ND = clip.unmerged().contiguous()
        with new_file(folder / mm_hash, "encoder_cache.safetensors") as stream:
            stream.write(safetensors.torch.save({"ec_cache": tokens_ND}))
        index.append({"mm_hash": mm_hash, "grid_thw": list(clip.grid_thw), "rows": len(tokens_ND), "uri": clip.uri})
        rows += len(tokens_ND)
    write_index(folder, index)
    notes = (
        "give each video its mm_hash as multi_modal_uuids; the model must be the one whose encoder filled the cache, "
        "after its merger or projector",
    )
    return Exported(format="vllm-ec", items=len(index), rows=rows, notes=notes)


def check_unmerged(cache: TokenCache) -> None:
    """Look at every clip's numbers, before a token is read.

    Raises:
        SettingsError: one has fewer tokens than patches, or a budget merges them.
    """
    for clip in cache.facts():
        if cache.cut is not None or clip.num_tokens != clip.num_sources:
            told = "a budget" if cache.cut is not None else counted(clip.num_tokens, "merged token")
            raise SettingsError(
                f"vllm-ec takes one row a patch, {clip.num_sources} for clip {clip.clip_id}, which has {told}: "
                "add --spread to repeat each token for its patches, or export to sglang, which takes merged tokens"
            )
