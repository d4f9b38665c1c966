"""Writing with attention that knows sizes: `generate` of `transformers` takes no mask of four axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


@torch.inference_mode()
def write_sized(model: Any, inputs: Mapping[str, Any], max_new_tokens: int) -> Tensor:
    """Write on greedily; the bias of the visual tokens stays with their keys.

    Args:
        model: of `transformers`.
        inputs: of `video_inputs(..., size_bias=True)`.
        max_new_tokens: most tokens written; fewer where the model ends.

    Returns:
        (A,) int64.
    """
    named = model.generation_config.eos_token_id
    ends = set(named) if isinstance(named, list) else {named}
    output = model(**inputs, use_cache=True)
    seen_111L, positions = inputs["attention_mask"][:, :, -1:], inputs["position_ids"]
    written: list[Tensor] = []
    while len(written) < max_new_tokens:
        written.append(output.logits[:, -1:].argmax(dim=-1))
        if len(written) == max_new_tokens or int(written[-1]) in ends:
            break
        # What is written has size 1, whose logarithm is 0.
        seen_111L = torch.cat([seen_111L, torch.zeros_like(seen_111L[..., :1])], dim=-1)
        positions = positions[..., -1:] + 1
        output = model(
            input_ids=written[-1],
            attention_mask=seen_111L,
            position_ids=positions,
            past_key_values=output.past_key_values,
            use_cache=True,
        )
    return torch.cat(written, dim=1)[0] if written else inputs["input_ids"].new_empty(0)
