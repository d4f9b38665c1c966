"""From a cache to an answer, and from a cache to a loss, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.cache.cached_clip import CachedClip
from pipeline.cache.token_cache import TokenCache
from pipeline.consumers.inputs import video_inputs
from pipeline.consumers.prompts import Tokenizer, text_tokenizer
from pipeline.consumers.sized_writing import write_sized
from pipeline.counted import counted
from pipeline.errors import SettingsError


def clips_of(cache: TokenCache, video_id: str | None = None) -> list[CachedClip]:
    """The clips of a video in order of time; of the only one, where none is named.

    Raises:
        SettingsError: there is no such video, no clip, or several videos and none named.
    """
    positions = cache.video_positions
    if video_id is None and len(positions) == 1:
        video_id = next(iter(positions))
    if video_id is None or video_id not in positions:
        said = "none was named" if video_id is None else f"{video_id} is none of them"
        example = f", such as {next(iter(positions))}" if positions else ""
        raise SettingsError(
            f"{cache.path} holds {counted(len(positions), 'video')}{example}; {said}: name one "
            "(video_id=, or --video ID)"
        )
    return [cache[position] for position in positions[video_id]]


@torch.inference_mode()
def answer(
    cache: TokenCache,
    question: str,
    *,
    model: Any,
    tokenizer: Tokenizer,
    video_id: str | None = None,
    clips: Sequence[CachedClip] | None = None,
    max_new_tokens: int = 128,
    size_bias: bool = False,
    **generation: Any,
) -> str:
    """What a video-LLM says to a question on a video, from its cached tokens.

    Args:
        cache: of that model, at any budget.
        question: a text, or a whole prompt with the family's mark for a video.
        model: of `transformers`, with its language head.
        tokenizer: of the model; a processor will do.
        video_id: which video; not needed where the cache holds one.
        clips: some of its clips, in order; all of them where none are given.
        max_new_tokens: of the answer.
        size_bias: whether attention knows the tokens' sizes. The answer is then written greedily.
        generation: further arguments of `generate`, such as `num_beams` or `do_sample`.

    Raises:
        SettingsError: as `clips_of` and `video_inputs`; or `size_bias` and arguments of `generate`.
    """
    if size_bias and generation:
        raise SettingsError(f"size_bias writes greedily: leave out {', '.join(sorted(generation))}")
    chosen = clips_of(cache, video_id) if clips is None else clips
    inputs = video_inputs(chosen, run=cache.run, model=model, prompt=question, tokenizer=tokenizer, size_bias=size_bias)
    if size_bias:
        told = write_sized(model, inputs, max_new_tokens)
    else:
        told = model.generate(**inputs, max_new_tokens=max_new_tokens, **generation)[0, inputs["input_ids"].shape[1] :]
    text: str = text_tokenizer(tokenizer).decode(told, skip_special_tokens=True)
    return text


def answer_loss(
    cache: TokenCache,
    prompt: str | Sequence[int],
    target: str | Sequence[int],
    *,
    model: Any,
    tokenizer: Tokenizer | None = None,
    video_id: str | None = None,
    clips: Sequence[CachedClip] | None = None,
    **choices: Any,
) -> Tensor:
    """The loss of a target answer: a scalar with gradients into the language model.

    Args:
        cache: of that model, at any budget.
        prompt: as `video_inputs` takes it.
        target: the answer to learn.
        model: in training mode.
        tokenizer: of the model; not needed for ids.
        video_id: which video; not needed where the cache holds one.
        clips: some of its clips, in order; all of them where none are given.
        choices: `wanted`, `rounding` and `size_bias` of `video_inputs`.

    Raises:
        SettingsError: as `clips_of` and `video_inputs`.
    """
    chosen = clips_of(cache, video_id) if clips is None else clips
    inputs = video_inputs(
        chosen, run=cache.run, model=model, prompt=prompt, tokenizer=tokenizer, answer=target, **choices
    )
    loss: Tensor = model(**inputs).loss
    return loss
