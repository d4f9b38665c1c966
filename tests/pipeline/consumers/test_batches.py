"""A batch of prompts gives what each gives alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.consumers import batch_inputs, video_inputs
from pipeline.errors import SettingsError
from tests.pipeline.consumers.conftest import Made
from tests.pipeline.encode.video_llm_checkpoints import MAKERS


def sample(here: Made, clips: list[int], prompt: str, tokenizer: Any, **choices: Any) -> dict[str, Any]:
    given = {"run": here.cache.run, "model": here.model, "prompt": prompt, "tokenizer": tokenizer}
    return video_inputs([here.cache[index] for index in clips], **given | choices)


@pytest.mark.parametrize("family", MAKERS)
def test_a_batch_gives_what_each_sample_gives(family: str, made: Callable[..., Made], tokenizer: Any) -> None:
    here = made(family, strategy="tree", keep=0.3)
    samples = [
        sample(here, [0, 1], "One?", tokenizer, answer="Yes."),
        sample(here, [2], "And now?", tokenizer, answer="No"),
    ]
    with torch.no_grad():
        alone = [here.model(**inputs) for inputs in samples]
        together = here.model(**batch_inputs(samples))
    for index, (inputs, output) in enumerate(zip(samples, alone, strict=True)):
        length = inputs["input_ids"].shape[-1]
        found = together.logits[index : index + 1, :length]
        torch.testing.assert_close(found, output.logits, rtol=1e-4, atol=1e-4 * float(output.logits.abs().max()))
    learnt = [int((inputs["labels"][:, 1:] >= 0).sum()) for inputs in samples]
    expected = sum(float(output.loss) * count for output, count in zip(alone, learnt, strict=True)) / sum(learnt)
    assert float(together.loss) == pytest.approx(expected, rel=1e-4)


def test_what_makes_no_batch_is_one_line(made: Callable[..., Made], tokenizer: Any) -> None:
    here = made("qwen2_vl")
    plain, told = sample(here, [0], "One?", tokenizer), sample(here, [0], "One?", tokenizer, answer="Yes.")
    sized = sample(here, [0], "One?", tokenizer, size_bias=True)
    for samples, expected in (
        ([], "no sample"),
        ([plain, told], "some samples have labels"),
        ([sized], "one at a time"),
    ):
        with pytest.raises(SettingsError, match=expected):
            batch_inputs(samples)
