"""A prompt -> token ids with a placeholder for each visual token, and the words that a family puts between its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.consumers.readers import Reader
from pipeline.consumers.video_sequence import VideoSequence
from pipeline.counted import counted
from pipeline.errors import SettingsError

Tokenizer = Any
"""A tokenizer, or a processor with one, of `transformers`."""


def prompt_ids(
    prompt: str | Sequence[int],
    sequence: VideoSequence,
    reader: Reader,
    placeholder_id: int,
    tokenizer: Tokenizer | None,
) -> Tensor:
    """(L,) int64: the prompt's tokens, among them as many placeholders as the model will take tokens.

    Args:
        prompt: a question; or a whole prompt with the family's mark for a video in it; or token ids, with one
            placeholder among them.
        sequence: the tokens.
        reader: of the family.
        placeholder_id: what the model replaces.
        tokenizer: for texts.

    Raises:
        SettingsError: the mark or the placeholder is not there once, or the tokenizer is missing or of another model.
    """
    expected = len(sequence.tokens_MD) + reader.newline
    if not isinstance(prompt, str):
        return _expanded_ids(list(prompt), expected, reader, placeholder_id)
    chat, tokenizer = tokenizer, text_tokenizer(tokenizer)
    chat = chat if getattr(chat, "chat_template", None) else tokenizer
    placeholder = tokenizer.convert_ids_to_tokens(placeholder_id)
    text = expanded_text(chat_text(prompt, reader, chat), sequence, reader, str(placeholder))
    ids: Tensor = torch.tensor(tokenizer(text)["input_ids"], dtype=torch.int64)
    found = int((ids == placeholder_id).sum())
    if found != expected:
        raise SettingsError(
            f"the tokenizer makes {counted(found, 'placeholder')} of {expected} {placeholder}: "
            "pass the tokenizer of the model"
        )
    return ids


def text_tokenizer(tokenizer: Tokenizer | None) -> Any:
    """The tokenizer itself, of a processor its own.

    Raises:
        SettingsError: there is none.
    """
    if tokenizer is None:
        raise SettingsError("a text needs the model's tokenizer: pass tokenizer=, or give token ids")
    return getattr(tokenizer, "tokenizer", tokenizer)


def chat_text(prompt: str, reader: Reader, tokenizer: Tokenizer) -> str:
    """The prompt if it holds the family's mark, else a chat that asks it after the video.

    Raises:
        SettingsError: the mark is there more than once.
    """
    if reader.mark not in prompt:
        prompt = _chat(prompt, reader, tokenizer)
    if prompt.count(reader.mark) != 1:
        raise SettingsError(
            f"the prompt holds {reader.mark} {prompt.count(reader.mark)} times: give one for the video, whose clips "
            "are joined"
        )
    return prompt


def expanded_text(text: str, sequence: VideoSequence, reader: Reader, placeholder: str) -> str:
    """The text with the tokens' placeholders in place of its mark."""
    enclosed = reader.enclosed[0] + reader.mark + reader.enclosed[1]
    mark = enclosed if enclosed in text else reader.mark
    if reader.before is None:
        return text.replace(mark, placeholder * (len(sequence.tokens_MD) + reader.newline))
    counts = torch.bincount(sequence.row_of_M, minlength=len(sequence.rows)).tolist()
    # A row all of whose tokens were merged into another row's has nothing to show.
    shown = [(row, count) for row, count in zip(sequence.rows, counts, strict=True) if count]
    opening = "" if reader.opening is None else reader.opening(len(shown), sequence.rows[-1].time_s)
    rows = [reader.before(row) + placeholder * count + reader.after for row, count in shown]
    return text.replace(mark, opening + reader.between.join(rows) + reader.closing)


def _chat(question: str, reader: Reader, tokenizer: Tokenizer) -> str:
    if getattr(tokenizer, "chat_template", None):
        content = [{"type": "video"}, {"type": "text", "text": question}]
        chat: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        if reader.mark in chat:
            return chat
    return reader.chat.format(question=question)


def _expanded_ids(ids: list[int], expected: int, reader: Reader, placeholder_id: int) -> Tensor:
    if reader.before is not None:
        raise SettingsError("this family puts words before each frame: give the prompt as text, with tokenizer=")
    if ids.count(placeholder_id) != 1:
        raise SettingsError(
            f"the prompt's ids hold the placeholder {placeholder_id} {ids.count(placeholder_id)} times: give one for "
            "the video, whose clips are joined"
        )
    place = ids.index(placeholder_id)
    return torch.tensor([*ids[:place], *[placeholder_id] * expected, *ids[place + 1 :]], dtype=torch.int64)
