"""config.json of a two-tower checkpoint -> the shape of its text tower."""

from __future__ import annotations

from dataclasses import dataclass

from vtm.encoders.checkpoint.fields import Fields, Json, body_fields
from vtm.encoders.config import PositionConfig, VitConfig
from vtm.errors import EncoderError

_CLIP_TEXT = {
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
    "patch_size": 1,
}
_SIGLIP_TEXT = {
    **_CLIP_TEXT,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vocab_size": 32000,
    "max_position_embeddings": 64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextShape:
    """What a text tower is made of."""

    body: VitConfig
    """Its blocks, and the channels of the embedding; patches do not exist."""
    vocabulary: int
    max_tokens: int
    causal: bool
    """Each token sees those before it, and the end of text carries it all (CLIP); else the last place does (SigLIP)."""
    end_id: int
    """Id of the end of text."""


def text_shape(config: Json) -> TextShape:
    """Read the text tower of a two-tower checkpoint's config.json.

    Raises:
        EncoderError: the family has no text tower, or a field has an odd value.
    """
    family = config.get("model_type")
    if family not in ("clip", "siglip"):
        raise EncoderError(f"config.json: model_type {family!r} has no text tower; expected clip or siglip")
    causal = family == "clip"
    text = dict(config.get("text_config") or {})
    fields = Fields(text, _CLIP_TEXT if causal else _SIGLIP_TEXT)
    pooled = config.get("projection_dim", 512) if causal else text.get("projection_size", fields.integer("hidden_size"))
    body = VitConfig(
        family=f"{family} text",
        **body_fields(fields),
        mlp_dim=fields.integer("intermediate_size"),
        positions=PositionConfig(kind="learned", grid_hw=(1, fields.integer("max_position_embeddings"))),
        has_cls=False,
        pooled_dim=pooled,
    )
    return TextShape(
        body=body,
        vocabulary=fields.integer("vocab_size"),
        max_tokens=fields.integer("max_position_embeddings"),
        causal=causal,
        end_id=fields.integer("eos_token_id"),
    )
