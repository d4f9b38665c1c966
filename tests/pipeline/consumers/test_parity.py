"""Models read the cache as they read pixels: in a pass, in writing, in training."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch

from pipeline.consumers import answer, answer_loss, video_inputs
from tests.pipeline.consumers.conftest import Made
from tests.pipeline.consumers.pixel_path import EVEN, frames_of, pixel_inputs
from tests.pipeline.encode.video_llm_checkpoints import MAKERS

CLOSE = 1e-5
FPS = Fraction(2)
QUESTION = "What is it?"
FAMILIES = list(MAKERS)


def both(
    made: Made, tokenizer: Any, clips: list[int] | None = None, **choices: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
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
    """Several clips of the video at once, the last one shorter."""
    here = made(family)
    cached, pixels = both(here, tokenizer)
    with torch.no_grad():
        found, expected = here.model(**cached).logits, here.model(**pixels).logits
    assert difference(found, expected) < CLOSE
    if family in EVEN:
        positions, _ = here.model.model.get_rope_index(**dict(pixels, pixel_values_videos=None))
        assert torch.equal(cached["position_ids"][1:], positions)


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_stays_within_its_rounding(family: str, made: Callable[..., Made], tokenizer: Any) -> None:
    """What the float16 cache changes in the logits is what rounding the model's own features to float16 changes."""
    here = made(family, dtype="float16")
    cached, pixels = both(here, tokenizer, [1])
    with torch.no_grad():
        expected = here.model(**pixels).logits
        found = difference(here.model(**cached).logits, expected)
        features = features_of(here.model, pixels)
        rounded = difference(here.model(**text_of(cached), mm_encoder_outputs=features).logits, expected)
    assert 0 < rounded < 0.05
    assert found < 2 * rounded


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beams", [1, 3])
def test_the_same_is_written(family: str, beams: int, made: Callable[..., Made], tokenizer: Any) -> None:
    here = made(family)
    cached, pixels = both(here, tokenizer, [0, 1])
    asked = {"num_beams": beams, "max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 2}
    asked |= {"return_dict_in_generate": True, "output_scores": True}
    with torch.no_grad():
        found, expected = here.model.generate(**cached, **asked), here.model.generate(**pixels, **asked)
    assert torch.equal(found.sequences, expected.sequences)
    for step, wanted in zip(found.scores, expected.scores, strict=True):
        seen = wanted.isfinite()
        assert difference(step[seen], wanted[seen]) < CLOSE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_training_has_the_same_gradients(family: str, made: Callable[..., Made], tokenizer: Any) -> None:
    here = made(family)
    clips = [here.cache[0], here.cache[1]]
    cached, pixels = both(here, tokenizer, [0, 1], answer="Yes.")
    gradients = []
    for inputs in (cached, pixels | {"labels": cached["labels"]}):
        here.model.zero_grad()
        loss = here.model(**inputs).loss
        loss.backward()
        named = here.model.named_parameters()
        gradients.append({name: p.grad.clone() for name, p in named if is_language(name) and p.grad is not None})
    here.model.zero_grad()
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) > 20
    scale = max(float(gradient.abs().max()) for gradient in gradients[1].values())
    for name, gradient in gradients[1].items():
        assert float((gradients[0][name] - gradient).abs().max()) < CLOSE * scale, name
    same = answer_loss(here.cache, QUESTION, "Yes.", model=here.model, tokenizer=tokenizer, clips=clips)
    torch.testing.assert_close(same, loss, rtol=CLOSE, atol=0)


def is_language(name: str) -> bool:
    return any(part in name for part in ("language_model", "text_model", "lm_head"))


def text_of(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "mm_encoder_outputs"}


def features_of(model: Any, pixels: dict[str, Any]) -> dict[str, Any]:
    """The model's own features, rounded to float16."""
    modality = "video" if "pixel_values_videos" in pixels else "image"
    given = {name: value for name, value in pixels.items() if name.startswith(("pixel_values", "video_"))}
    given.pop("video_compression_mask", None)
    output = getattr(model.base_model, f"get_{modality}_features")(**given, return_dict=True)

    def rounded(value: Any) -> Any:
        return value.half() if isinstance(value, torch.Tensor) else [rounded(item) for item in value]

    for name in ("pooler_output", "deepstack_features"):
        if getattr(output, name, None) is not None:
            setattr(output, name, rounded(getattr(output, name)))
    return {modality: output}


def test_one_call_answers(made: Callable[..., Made], tokenizer: Any) -> None:
    here = made("qwen2_5_vl")
    told = answer(here.cache, QUESTION, model=here.model, tokenizer=tokenizer, max_new_tokens=4, do_sample=False)
    cached, _ = both(here, tokenizer)
    written = here.model.generate(**cached, max_new_tokens=4, do_sample=False)
    assert told == tokenizer.decode(written[0, cached["input_ids"].shape[1] :], skip_special_tokens=True)
