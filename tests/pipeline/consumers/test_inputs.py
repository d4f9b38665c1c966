"""Merged tokens with their own positions, sizes and times; what does not fit is one clear line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pipeline import CachedClip, TokenCache
from pipeline.consumers import outputs
from pipeline.consumers.answers import answer, clips_of
from pipeline.consumers.inputs import video_inputs
from pipeline.consumers.sized_writing import write_sized
from pipeline.consumers.video_sequence import video_sequence
from pipeline.errors import SettingsError
from tests.pipeline.consumers.conftest import Made
from tests.pipeline.encode.video_llm_checkpoints import MAKERS, make_video_llm
from tests.pipeline.runs import run, tiny_recipe

QUESTION = "What is it?"
PLACEHOLDER = {"internvl": 290, "smolvlm": 290}


def merged(made: Callable[..., Made], family: str) -> Made:
    return made(family, strategy="tree", keep=0.3)


def inputs_of(here: Made, tokenizer: Any, clips: list[CachedClip] | None = None, **choices: Any) -> dict[str, Any]:
    given = {"run": here.cache.run, "model": here.model, "prompt": QUESTION, "tokenizer": tokenizer}
    return video_inputs(here.clips if clips is None else clips, **given | choices)


@pytest.mark.parametrize("family", MAKERS)
def test_merged_tokens_run(family: str, made: Callable[..., Made], tokenizer: Any) -> None:
    """Every token has its placeholder; the same prompt is read, written on, and counted by its sizes."""
    here = merged(made, family)
    inputs = inputs_of(here, tokenizer)
    count = sum(len(clip.tokens) for clip in here.clips) + (family == "llava_onevision")
    assert count < sum(len(clip.group) for clip in here.clips) / 2
    assert int((inputs["input_ids"] == PLACEHOLDER.get(family, 291)).sum()) == count
    assert inputs["position_ids"].shape[-1] == inputs["input_ids"].shape[-1]
    with torch.no_grad():
        plain = here.model(**inputs).logits
        assert plain.isfinite().all()
        written = here.model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, num_beams=2, pad_token_id=2)
        assert written.shape[1] == inputs["input_ids"].shape[1] + 3
        biased = here.model(**inputs_of(here, tokenizer, size_bias=True)).logits
    assert float((biased - plain).abs().max()) > 1e-3


@pytest.mark.parametrize("family", MAKERS)
def test_a_size_of_one_changes_nothing(family: str, made: Callable[..., Made], tokenizer: Any) -> None:
    here = made(family)
    with torch.no_grad():
        plain = here.model(**inputs_of(here, tokenizer)).logits
        biased = here.model(**inputs_of(here, tokenizer, size_bias=True)).logits
    torch.testing.assert_close(biased, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_onevision", "smolvlm"])
def test_writing_with_sizes_is_a_pass_over_all_that_was_written(
    family: str, made: Callable[..., Made], tokenizer: Any
) -> None:
    here = merged(made, family)
    told = write_sized(here.model, inputs_of(here, tokenizer, size_bias=True), 4).tolist()
    for count in range(len(told)):
        inputs = inputs_of(here, tokenizer, size_bias=True, answer=told[:count])
        inputs.pop("labels")
        with torch.no_grad():
            assert int(here.model(**inputs).logits[0, -1].argmax()) == told[count]
    said = answer(here.cache, QUESTION, model=here.model, tokenizer=tokenizer, size_bias=True, max_new_tokens=4)
    assert said == tokenizer.decode(told, skip_special_tokens=True)
    with pytest.raises(SettingsError, match="size_bias writes greedily: leave out num_beams"):
        answer(here.cache, QUESTION, model=here.model, tokenizer=tokenizer, size_bias=True, num_beams=2)


def test_writing_with_sizes_of_one_is_generate(made: Callable[..., Made], tokenizer: Any) -> None:
    here = made("qwen2_5_vl")
    inputs = inputs_of(here, tokenizer)
    expected = here.model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert torch.equal(write_sized(here.model, inputs_of(here, tokenizer, size_bias=True), 5), expected)


def test_positions_are_those_of_the_centres_and_times(made: Callable[..., Made], tokenizer: Any) -> None:
    """Four frames a clip at 2 a second, so a row every second, and two positions a second."""
    here = merged(made, "qwen2_5_vl")
    here.model.config.vision_config.tokens_per_second = 2
    clips = [here.cache[0], here.cache[2]]
    inputs = video_inputs(clips, run=here.cache.run, model=here.model, prompt=QUESTION, tokenizer=tokenizer)
    (places,) = (inputs["input_ids"][0] == 291).nonzero(as_tuple=True)
    start = int(places[0])
    time, row, column = (inputs["position_ids"][1:, 0, places] - start).tolist()
    expected_s = [*(clips[0].centers[:, 0] * 1.0).tolist(), *(4.0 + clips[1].centers[:, 0]).tolist()]
    assert time == [int(2 * at_s + 1e-6) for at_s in expected_s]
    centers = torch.cat([clip.centers for clip in clips])
    assert row == (centers[:, 1] + 0.5).floor().tolist()
    assert column == (centers[:, 2] + 0.5).floor().tolist()
    after = inputs["position_ids"][1:, 0, int(places[-1]) + 1]
    assert after.tolist() == [start + max(here.cache[0].grid_thw[1:])] * 3
    sizes = video_sequence(clips, here.cache.run).sizes_M
    assert int(sizes.sum()) == sum(len(clip.group) for clip in clips)


def test_qwen3_groups_merged_tokens_by_the_row_nearest_to_their_centre(
    made: Callable[..., Made], tokenizer: Any
) -> None:
    here = merged(made, "qwen3_vl")
    text = tokenizer.decode(inputs_of(here, tokenizer)["input_ids"][0])
    for clip in here.clips:
        for row in range(clip.grid_thw[0]):
            times = clip.frame_time_ns[2 * row : 2 * row + 2].double() / 1e9
            words = f"<{float(times[0] + times[-1]) / 2:.1f} seconds><|vision_start|>"
            count = int(((clip.centers[:, 0] + 0.5).floor() == row).sum())
            if count:
                assert words + "<|video_pad|>" * count + "<|vision_end|>" in text
            else:
                assert words not in text


def test_words_of_the_families_that_tell_frames_apart(made: Callable[..., Made], tokenizer: Any) -> None:
    said = {
        family: inputs_of(made(family), tokenizer)["input_ids"][0]
        for family in ("internvl", "smolvlm", "video_llama_3")
    }
    texts = {family: tokenizer.decode(ids) for family, ids in said.items()}
    pad = "<|image_pad|>"
    assert f"Frame1: <img>{pad * 9}</img>\nFrame2: <img>{pad * 9}</img>\nFrame3" in texts["internvl"]
    assert "following series of 9 frames from a 0:00:04 [H:MM:SS] video.\n" in texts["smolvlm"]
    assert f"\nFrame from 00:01:<fake_token_around_image><global-img>{pad * 9}<fake" in texts["smolvlm"]
    assert f"Time 0.0s:{'<|video_pad|>' * 6},Time 0.5s:" in texts["video_llama_3"]


def test_a_tokenizers_own_template_and_a_whole_prompt(made: Callable[..., Made], tokenizer: Any) -> None:
    here = made("qwen2_5_vl")
    tokenizer.chat_template = (
        "{% for part in messages[0].content %}{% if part.type == 'video' %}A<|video_pad|>B{% else %}{{ part.text }}"
        "{% endif %}{% endfor %}"
    )
    try:
        count = sum(len(clip.tokens) for clip in here.clips)
        expected = "A" + "<|video_pad|>" * count + "BWhat is it?"
        assert tokenizer.decode(inputs_of(here, tokenizer)["input_ids"][0]) == expected
        whole = inputs_of(here, tokenizer, prompt="A<|video_pad|>BWhat is it?")
        assert tokenizer.decode(whole["input_ids"][0]) == expected
        by_ids = inputs_of(here, None, prompt=tokenizer("A<|video_pad|>BWhat is it?")["input_ids"])
        assert torch.equal(by_ids["input_ids"], whole["input_ids"])
    finally:
        tokenizer.chat_template = None


def test_each_place_of_the_grid_may_have_the_token_that_represents_it(
    made: Callable[..., Made], tokenizer: Any
) -> None:
    here = merged(made, "qwen2_vl")
    whole = made("qwen2_vl")
    spread = inputs_of(here, tokenizer, wanted="spread")
    unmerged = inputs_of(whole, tokenizer, wanted="unmerged")
    assert torch.equal(spread["input_ids"], unmerged["input_ids"])
    assert torch.equal(spread["position_ids"], unmerged["position_ids"])
    (tokens,) = spread["mm_encoder_outputs"]["video"].pooler_output
    assert torch.equal(tokens, torch.cat([clip.unmerged() for clip in here.clips]))


def test_a_cache_is_read_at_any_budget(made: Callable[..., Made], tokenizer: Any) -> None:
    here = merged(made, "qwen3_vl")
    coarse = TokenCache(here.out, tokens=2)
    inputs = inputs_of(here, tokenizer, list(coarse))
    assert int((inputs["input_ids"] == 291).sum()) == sum(min(2, len(clip.tokens)) for clip in here.clips)
    with torch.no_grad():
        assert here.model(**inputs).logits.isfinite().all()


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "float16"])
def test_a_cache_of_any_dtype_and_of_arrays(dtype: str, made: Callable[..., Made], tokenizer: Any) -> None:
    here = made("qwen2_5_vl", dtype=dtype)
    arrays = list(TokenCache(here.out, arrays="numpy"))
    with torch.no_grad():
        exact = here.model(**inputs_of(made("qwen2_5_vl"), tokenizer)).logits
        for clips in (here.clips, arrays):
            found = here.model(**inputs_of(here, tokenizer, clips)).logits
            assert 0 < float((found - exact).abs().max()) < 0.3 * float(exact.abs().max())


def test_the_model_may_have_dropped_its_vision_part(made: Callable[..., Made], tokenizer: Any) -> None:
    here = made("qwen2_5_vl")
    model = transformers.AutoModelForImageTextToText.from_pretrained(here.folder).eval()
    inputs = video_inputs(here.clips, run=here.cache.run, model=model, prompt=QUESTION, tokenizer=tokenizer)
    with torch.no_grad():
        expected = model(**inputs).logits
        del model.model.visual
        inputs = video_inputs(here.clips, run=here.cache.run, model=model, prompt=QUESTION, tokenizer=tokenizer)
        assert torch.equal(model(**inputs).logits, expected)


def test_fractions_are_taken_by_a_pass_and_by_writing(made: Callable[..., Made], tokenizer: Any) -> None:
    here = merged(made, "qwen3_vl")
    inputs = inputs_of(here, tokenizer, rounding="fraction")
    assert inputs["position_ids"].is_floating_point()
    with torch.no_grad():
        whole, fraction = here.model(**inputs_of(here, tokenizer)).logits, here.model(**inputs).logits
        here.model.generate(**inputs_of(here, tokenizer, rounding="fraction"), max_new_tokens=2, pad_token_id=2)
    assert float((whole - fraction).abs().max()) > 1e-3


def test_another_model_is_refused(
    made: Callable[..., Made], tokenizer: Any, tiny_encoder: Path, one_video: Path, tmp_path: Path
) -> None:
    here, other = made("qwen2_5_vl"), made("qwen3_vl")
    with pytest.raises(SettingsError, match=r"the cache is of .* \(qwen2_5_vl\), the model is a qwen3_vl$"):
        inputs_of(replace(here, model=other.model), tokenizer)
    folder = make_video_llm("qwen2_5_vl", tmp_path / "other", seed=8)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    with pytest.raises(SettingsError, match="whose projection has other weights than the model's"):
        inputs_of(replace(here, model=model), tokenizer)
    half = transformers.AutoModelForImageTextToText.from_pretrained(here.folder, dtype=torch.bfloat16)
    assert inputs_of(replace(here, model=half), tokenizer)
    run([one_video], tmp_path / "vit", tiny_recipe(tiny_encoder))
    cache = TokenCache(tmp_path / "vit")
    with pytest.raises(SettingsError, match="which is no video-LLM: extract with --encoder set to the model's own"):
        video_inputs(list(cache), run=cache.run, model=here.model, prompt=QUESTION, tokenizer=tokenizer)


def test_a_cache_of_the_tower_is_refused(made: Callable[..., Made], tokenizer: Any) -> None:
    here = made("smolvlm", stage="tower")
    assert here.cache[0].tokens.shape[1] == 24
    with pytest.raises(SettingsError, match=r"holds the tower's tokens of .*: extract with --stage projected"):
        inputs_of(here, tokenizer)


def test_a_wider_language_model_is_refused(made: Callable[..., Made], tokenizer: Any) -> None:
    here = made("qwen2_5_vl")
    narrow = {**here.cache.run, "encoder": here.cache.run["encoder"] | {"dim": 24}}
    with pytest.raises(SettingsError, match="have 24 channels, the model's language model reads 32"):
        inputs_of(here, tokenizer, run=narrow)


def test_what_does_not_fit_is_one_line(made: Callable[..., Made], tokenizer: Any) -> None:
    here = merged(made, "qwen2_5_vl")
    clips = here.clips
    bad: list[tuple[dict[str, Any], list[Any], str]] = [
        ({}, [], "no clip was given"),
        ({}, clips[::-1], "give the clips in order of time"),
        ({}, [clips[0], replace(clips[1], video_id="x")], "are of two videos"),
        ({}, [clips[0], replace(clips[1], grid_thw=(2, 1, 6))], "have grids of"),
        ({"wanted": "unmerged"}, clips, "merged tokens for .* places .*: unmerged ones need an extraction with"),
        ({"tokenizer": None}, clips, "needs the model's tokenizer"),
        ({"prompt": "<|video_pad|> and <|video_pad|>"}, clips, r"holds <\|video_pad\|> 2 times"),
        ({"prompt": [5, 6]}, clips, "hold the placeholder 291 0 times"),
        ({"answer": "<|video_pad|>"}, clips, "the answer holds the placeholder 291 of visual tokens"),
    ]
    for choices, given, expected in bad:
        with pytest.raises(SettingsError, match=expected) as raised:
            inputs_of(here, choices.pop("tokenizer", tokenizer), given, **choices)
        assert "\n" not in str(raised.value)
    three = merged(made, "qwen3_vl")
    with pytest.raises(SettingsError, match="puts words before each frame: give the prompt as text"):
        inputs_of(three, tokenizer, prompt=[291])


def test_a_cache_of_no_or_several_videos(
    made: Callable[..., Made], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = made("qwen2_5_vl")
    assert [clip.clip_index for clip in clips_of(here.cache)] == [0, 1, 2]
    with pytest.raises(SettingsError, match=r"holds 1 video, such as .*; nothing is none of them: name one"):
        answer(here.cache, QUESTION, model=here.model, tokenizer=tokenizer, video_id="nothing")
    monkeypatch.setattr(TokenCache, "video_positions", {})
    with pytest.raises(SettingsError, match="holds 0 videos; none was named"):
        clips_of(here.cache)


def test_an_old_transformers_is_refused(
    made: Callable[..., Made], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "5.17.2")
    with pytest.raises(SettingsError, match=r"transformers 5.17.2 takes no cached tokens .*: install 5.18 or newer"):
        inputs_of(made("qwen2_vl"), tokenizer)
    assert outputs.SINCE == (5, 18)
    assert Fraction(made("qwen2_vl").cache.run["settings"]["fps"]) == 2
