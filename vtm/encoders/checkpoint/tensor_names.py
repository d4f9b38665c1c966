"""Tensor names of checkpoints -> the names of `vit.VisionTransformer`, before what belongs together is fused.

One table serves all families: their names differ, but none means two things. `*` is a block's number.
"""

from __future__ import annotations

import re

from vtm.errors import EncoderError

_WRAPPERS = re.compile(r"^(?:vit|deit|dinov2|dinov2_with_registers|dinov3_vit|model|vision_model)\.")
_BLOCK = re.compile(r"^(?:encoder\.)?(?:layer|layers)\.(\d+)\.(.+)$")

_OUTSIDE = {
    "embeddings.cls_token": "cls",
    "embeddings.class_embedding": "cls",
    "embeddings.distillation_token": "registers",
    "embeddings.register_tokens": "registers",
    "embeddings.position_embeddings": "positions",
    "embeddings.position_embedding.weight": "positions",
    "pre_layrnorm": "pre_norm",
    "embeddings.patch_embeddings.projection": "patch",
    "embeddings.patch_embeddings": "patch",
    "embeddings.patch_embedding": "patch",
    "layernorm": "norm",
    "norm": "norm",
    "post_layernorm": "norm",
    "pooler.dense": "head.dense",
    "visual_projection": "head.projection",
    "head.probe": "head.probe",
    "head.attention.in_proj_weight": "head.qkv.weight",
    "head.attention.in_proj_bias": "head.qkv.bias",
    "head.attention.out_proj": "head.proj",
    "head.layernorm": "head.norm",
    "head.mlp.fc1": "head.fc1",
    "head.mlp.fc2": "head.fc2",
}

_INSIDE = {
    "norm1": "norm1",
    "layernorm_before": "norm1",
    "layer_norm1": "norm1",
    "norm2": "norm2",
    "layernorm_after": "norm2",
    "layer_norm2": "norm2",
    "attention.attention.query": "q",
    "attention.attention.key": "k",
    "attention.attention.value": "v",
    "attention.output.dense": "proj",
    "attention.q_proj": "q",
    "attention.k_proj": "k",
    "attention.v_proj": "v",
    "attention.o_proj": "proj",
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.out_proj": "proj",
    "layer_scale1.lambda1": "scale1",
    "layer_scale2.lambda1": "scale2",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "mlp.weights_in": "gate_up",
    "mlp.weights_out": "fc2",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "fc1",
    "mlp.down_proj": "fc2",
}

_UNUSED = re.compile(
    # What training or another tower needs, not the image: masks, classifiers, decoders, index buffers, the text side.
    r"(?:^|\.)(?:mask_token|position_ids|classifier|cls_classifier|distillation_classifier|decoder|"
    r"text_model|text_projection|logit_scale|logit_bias|inv_freq)(?:\.|$)"
)


def own_name(key: str) -> str | None:
    """The name in this package of a checkpoint's tensor, or None for a tensor that images do not need.

    Raises:
        EncoderError: the name is not known.
    """
    if _UNUSED.search(key):
        return None
    bare = key
    while wrapper := _WRAPPERS.match(bare):
        bare = bare[wrapper.end() :]
    if block := _BLOCK.match(bare):
        name = _lookup(_INSIDE, block[2])
        if name is not None:
            return f"blocks.{block[1]}.{name}"
    else:
        name = _lookup(_OUTSIDE, bare)
        if name is not None:
            return name
    raise EncoderError(f"the checkpoint's tensor {key!r} has no place in a vision transformer of a known family")


_TEXT = {
    "text_model.embeddings.token_embedding": "tokens",
    "text_model.embeddings.position_embedding.weight": "positions",
    "text_model.final_layer_norm": "norm",
    "text_model.head": "head",
    "text_projection": "head",
}


def text_name(key: str) -> str | None:
    """The name in `text.TextEncoder` of a checkpoint's tensor, or None for one of another part.

    Raises:
        EncoderError: a tensor of the text tower has no known name.
    """
    if not key.startswith(("text_model.", "text_projection.")) or key.endswith("position_ids"):
        return None
    block = _BLOCK.match(key.removeprefix("text_model."))
    name = _lookup(_INSIDE, block[2]) if block else _lookup(_TEXT, key)
    if name is None:
        raise EncoderError(f"the checkpoint's tensor {key!r} has no place in a text tower of a known family")
    return f"blocks.{block[1]}.{name}" if block else name


def _lookup(table: dict[str, str], name: str) -> str | None:
    """`name` in `table`, as it is or without its `.weight` or `.bias`."""
    if name in table:
        return table[name]
    stem, _, kind = name.rpartition(".")
    return f"{table[stem]}.{kind}" if kind in ("weight", "bias") and stem in table else None


def block_of(name: str) -> int | None:
    """The block's number in an own name, or None outside the blocks."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blocks" else None
