"""Whether a model can read a cache: the same family, width and projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.encode.video_llm.families import VIDEO_LLMS
from pipeline.encode.video_llm.weights import probe_hash
from pipeline.errors import SettingsError


def check_model(run: Mapping[str, Any], model: Any) -> None:
    """Refuse a model whose vision part did not make the cache.

    A model that has dropped its vision part is told by its configuration alone.

    Raises:
        SettingsError: the cache is of no video-LLM, of another one, or of other weights.
    """
    encoder, family = run["encoder"], model.config.model_type
    about = encoder.get("video_llm")
    if about is None:
        raise SettingsError(
            f"the cache holds tokens of {encoder['name']}, which is no video-LLM: extract with --encoder set to the "
            "model's own checkpoint"
        )
    if about["stage"] != "projected":
        raise SettingsError(
            f"the cache holds the {about['stage']}'s tokens of {encoder['name']}, which its language model does not "
            "read: extract with --stage projected"
        )
    if about["family"] != family:
        raise SettingsError(f"the cache is of {encoder['name']} ({about['family']}), the model is a {family}")
    dim, width = encoder["dim"] // (1 + about["deepstack"]), model.config.get_text_config().hidden_size
    if dim != width:
        raise SettingsError(
            f"the cache's tokens, of {encoder['name']}, have {dim} channels, the model's language model reads {width}"
        )
    weight = dict(model.base_model.named_parameters()).get(VIDEO_LLMS[family].probe)
    # A quantized weight says nothing, nor does one that is not there.
    if weight is None or not weight.dtype.is_floating_point or weight.dtype.itemsize < 2 or weight.is_meta:
        return
    if probe_hash(weight) != about["projection_probe"]:
        raise SettingsError(
            f"the cache is of {encoder['name']}, whose projection has other weights than the model's: give the model "
            "that made it, or extract again with this one"
        )
