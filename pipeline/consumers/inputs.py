"""Cached clips -> what `model(**inputs)` and `model.generate(**inputs)` of a video-LLM take in place of pixels.

Letters: P tokens of a prompt, A of an answer, L of both, M visual ones, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.cache.cached_clip import CachedClip
from pipeline.consumers.matching import check_model
from pipeline.consumers.outputs import encoder_output
from pipeline.consumers.positions import Rounding, prompt_positions
from pipeline.consumers.prompts import Tokenizer, prompt_ids, text_tokenizer
from pipeline.consumers.readers import READERS, Reader
from pipeline.consumers.video_sequence import VideoSequence, Wanted, video_sequence
from pipeline.errors import SettingsError
from vtm.size_attention import size_bias_mask

IGNORED = -100
"""Label of what is not trained on."""


def video_inputs(
    clips: Sequence[CachedClip],
    *,
    run: Mapping[str, Any],
    model: Any,
    prompt: str | Sequence[int],
    tokenizer: Tokenizer | None = None,
    answer: str | Sequence[int] | None = None,
    wanted: Wanted = "cached",
    rounding: Rounding = "whole",
    size_bias: bool = False,
) -> dict[str, Any]:
    """Inputs for one prompt on one video.

    Args:
        clips: consecutive clips of one video, in order; all are joined to one video with true times.
        run: `TokenCache.run`.
        model: whose vision part made the cache; it may have dropped that part since.
        prompt: a question, a whole prompt with the family's mark for a video, or token ids with one placeholder.
        tokenizer: of the model; a processor will do. Not needed for ids.
        answer: what is to be learnt: appended to the prompt, and alone counted by `labels`.
        wanted: `cached` tokens; `unmerged` ones, an error where they are merged; or tokens `spread` over the grid.
        rounding: of the positions of merged tokens.
        size_bias: whether a token counts as often in attention as it has sizes. The mask is then one of four axes,
            which `forward` takes and `generate` does not; `write_sized` writes with it.

    Returns:
        `input_ids` (1, L), `attention_mask` (1, L), or (1, 1, L, L) with `size_bias`, `position_ids` (1, L) or
        (4, 1, L), `mm_encoder_outputs`, with an answer `labels` (1, L); on the model's device. Build them anew for
        each call: beam search changes `mm_encoder_outputs`.

    Raises:
        SettingsError: the model cannot read this cache, or clips, prompt and tokenizer do not fit together.
    """
    check_model(run, model)
    sequence = video_sequence(clips, run, wanted)
    reader, config = READERS[model.config.model_type], model.config
    placeholder_id = int(getattr(config, f"{reader.modality}_token_id"))
    prompt_P = prompt_ids(prompt, sequence, reader, placeholder_id, tokenizer)
    answer_A = prompt_P[:0] if answer is None else answer_ids(answer, tokenizer)
    if bool((answer_A == placeholder_id).any()):
        raise SettingsError(f"the answer holds the placeholder {placeholder_id} of visual tokens: leave it out")
    ids_L = torch.cat([prompt_P, answer_A])
    is_visual_L = ids_L == placeholder_id
    sizes_M, output = _output(sequence, run, model, reader)
    inputs = {
        "input_ids": ids_L[None],
        "attention_mask": _size_bias(is_visual_L, sizes_M, model.dtype) if size_bias else torch.ones_like(ids_L)[None],
        "position_ids": prompt_positions(
            reader,
            is_visual_L,
            sequence,
            tokens_per_second=float(getattr(config.vision_config, "tokens_per_second", 1)),
            rounding=rounding,
        ),
    }
    if answer is not None:
        inputs["labels"] = torch.cat([torch.full_like(prompt_P, IGNORED), answer_A])[None]
    return {name: value.to(model.device) for name, value in inputs.items()} | {"mm_encoder_outputs": output}


def answer_ids(answer: str | Sequence[int], tokenizer: Tokenizer | None) -> Tensor:
    """(A,) int64: what follows the prompt; of a text, with the tokenizer's token for the end."""
    if not isinstance(answer, str):
        return torch.tensor(list(answer), dtype=torch.int64)
    tokenizer = text_tokenizer(tokenizer)
    end = [] if getattr(tokenizer, "eos_token_id", None) is None else [tokenizer.eos_token_id]
    ids = [*tokenizer(answer, add_special_tokens=False)["input_ids"], *end]
    return torch.tensor(ids, dtype=torch.int64)


def _output(
    sequence: VideoSequence, run: Mapping[str, Any], model: Any, reader: Reader
) -> tuple[Tensor, dict[str, Any]]:
    """Sizes of all tokens that the model takes, and what it takes them in."""
    layers = 1 + int(run["encoder"]["video_llm"]["deepstack"])
    tokens_MD, *deepstack_MD = sequence.tokens_MD.to(model.device).chunk(layers, dim=-1)
    sizes_M = sequence.sizes_M
    if reader.newline:
        newline_1D = model.base_model.image_newline[None]
        tokens_MD = torch.cat([tokens_MD.to(newline_1D.dtype), newline_1D])
        sizes_M = torch.cat([sizes_M, sizes_M.new_ones(1)])
    return sizes_M, encoder_output(tokens_MD, deepstack_MD, reader)


def _size_bias(is_visual_L: Tensor, sizes_M: Tensor, dtype: torch.dtype) -> Tensor:
    """(1, 1, L, L): the causal mask in which a visual token counts as often as it has sizes."""
    sizes_L = torch.ones(len(is_visual_L), dtype=sizes_M.dtype)
    sizes_L[is_visual_L] = sizes_M
    return size_bias_mask(sizes_L[None], causal=True).to(dtype)
