"""Models read the cache as they read pixels: in a pass, in writing, in training."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch

from pipeline.consumers.answer import answer, answer_loss
from pipeline.consumers.video_inputs import video_inputs
from tests.pipeline.consumers.conftest import Made
from tests.pipeline.consumers.pixel_path import EVEN, frames_of, pixel_inputs
from tests.pipeline.encode.video_llm_checkpoints import MAKERS

CLOSE = 1e-5
FPS = Fraction(2)
QUESTION = "What is it?"
FAMILIES = list(MAKERS)


def both(made: Made, tokenizer: Any, clips: list[int] | None = None, **choices: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs from the cache and from pixels."""
    clips = list(range(len(made.cache))) if clips is None else clips
    chosen = [made.cache[index] for index in clips]
    cached = video_inputs(chosen, run=made.cache.run, model=made.model, prompt=QUESTION, tokenizer=tokenizer, **choices)
    frames = frames_of(made.out, clips, even=made.family in EVEN)
    return cached, pixel_inputs(made.family, frames, cached["input_ids"], FPS)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Greatest difference, of the greatest value."""
    assert expected.abs().max() > 0.1
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_gives_the_same_logits(family: str, made: Callable[..., Made], tokenizer: Any) -> None:
    here = made(family)
    cached, pixels = both(here, tokenizer)
    with torch.no_grad():
        expected = here.model(**pixels).logits
        assert difference(here.model(**cached).logits, expected) < CLOSE
