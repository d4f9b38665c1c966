"""Several prompts, each on its own video, as one batch for `forward` and training.

Letters: B prompts, L tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.consumers.inputs import IGNORED
from pipeline.errors import SettingsError

_FILLING = {"input_ids": 0, "attention_mask": 0, "position_ids": 0, "labels": IGNORED}


def batch_inputs(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Inputs of `video_inputs` padded at their ends to one length.

    `generate` wants prompts padded at their starts, and takes one of them at a time.

    Args:
        samples: one or more, all with an answer or all without, of the same model, without `size_bias`.

    Returns:
        `input_ids` and `attention_mask` (B, L), `position_ids` (B, L) or (4, B, L), `labels` (B, L) where there are
        answers, `mm_encoder_outputs`.

    Raises:
        SettingsError: there is none, some have an answer and some not, or one has a mask of four axes.
    """
    if not samples:
        raise SettingsError("no sample was given: expected one or more of video_inputs")
    names = set(samples[0])
    if any(set(sample) != names for sample in samples):
        raise SettingsError("some samples have labels and some have not: give all of them an answer, or none")
    if any(sample["attention_mask"].ndim != 2 for sample in samples):
        raise SettingsError("samples with size_bias cannot be padded: give them one at a time")
    length = max(sample["input_ids"].shape[-1] for sample in samples)
    batch: dict[str, Any] = {
        name: torch.cat([_padded(sample[name], length, value) for sample in samples], dim=-2)
        for name, value in _FILLING.items()
        if name in names
    }
    return batch | {"mm_encoder_outputs": _together([sample["mm_encoder_outputs"] for sample in samples])}


def _padded(values: Tensor, length: int, filling: int) -> Tensor:
    return pad(values, (0, length - values.shape[-1]), value=filling)


def _together(outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One output with the tokens of all, in order; a new one, as each call of a model needs it."""
    ((modality, first),) = outputs[0].items()
    all_of = [output[modality] for output in outputs]
    if isinstance(first.pooler_output, Tensor):
        return {modality: type(first)(pooler_output=torch.cat([output.pooler_output for output in all_of], dim=1))}
    fields = {"pooler_output": [tokens for output in all_of for tokens in output.pooler_output]}
    if getattr(first, "deepstack_features", None) is not None:
        layers = zip(*(output.deepstack_features for output in all_of), strict=True)
        fields["deepstack_features"] = [[tokens for part in layer for tokens in part] for layer in layers]
    return {modality: type(first)(**fields)}
