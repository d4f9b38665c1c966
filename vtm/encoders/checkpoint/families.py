"""config.json of a checkpoint -> VitConfig, one function a family.

Checkpoints on the hub leave out what equals their family's default, so the defaults are part of the format: they are
repeated here.
"""

from __future__ import annotations

from collections.abc import Callable

from vtm.encoders.checkpoint.fields import Fields, Json, body_fields
from vtm.encoders.config import PositionConfig, VitConfig
from vtm.errors import EncoderError

_VIT = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "qkv_bias": True,
}
_DINOV2 = {**_VIT, "layer_norm_eps": 1e-6, "mlp_ratio": 4, "use_swiglu_ffn": False, "num_register_tokens": 4}
_DINOV3 = {
    **_VIT,
    "hidden_size": 384,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-5,
    "rope_theta": 100.0,
    "query_bias": True,
    "key_bias": False,
    "value_bias": True,
    "proj_bias": True,
    "mlp_bias": True,
    "num_register_tokens": 0,
}
_CLIP = {**_VIT, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "patch_size": 32, "projection_dim": 512}
_SIGLIP = {**_VIT, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": True}

_ALL_BIASES = frozenset({"patch", "q", "k", "v", "proj", "fc1", "fc2"})


def _biases(**has: bool) -> frozenset[str]:
    return _ALL_BIASES - {name for name, present in has.items() if not present}


def _vit(config: Json) -> VitConfig:
    fields = Fields(config, _VIT)
    distilled = config["model_type"] == "deit"
    qkv = fields.flag("qkv_bias")
    return VitConfig(
        family=str(config["model_type"]),
        **body_fields(fields),
        mlp_dim=fields.integer("intermediate_size"),
        num_registers=int(distilled),
        positions=PositionConfig(kind="learned", grid_hw=fields.grid_hw(), prefix=1 + int(distilled)),
        biases=_biases(q=qkv, k=qkv, v=qkv),
        head="dense",
        pooled_dim=fields.integer("pooler_output_size")
        if config.get("pooler_output_size")
        else fields.integer("hidden_size"),
    )


def _dinov2(config: Json) -> VitConfig:
    fields = Fields(config, _DINOV2)
    registers = config["model_type"] == "dinov2_with_registers"
    qkv, gated, dim = fields.flag("qkv_bias"), fields.flag("use_swiglu_ffn"), fields.integer("hidden_size")
    mlp_dim = int(dim * fields.number("mlp_ratio"))
    return VitConfig(
        family=str(config["model_type"]),
        **body_fields(fields) | ({"activation": "silu"} if gated else {}),
        # SwiGLU keeps two thirds, rounded up to a multiple of 8 (DINOv2, appendix B).
        mlp_dim=(int(mlp_dim * 2 / 3) + 7) // 8 * 8 if gated else mlp_dim,
        gated_mlp=gated,
        num_registers=fields.integer("num_register_tokens") if registers else 0,
        positions=PositionConfig(
            kind="learned", grid_hw=fields.grid_hw(), prefix=1, antialias=registers, interpolate_in_float32=True
        ),
        biases=_biases(q=qkv, k=qkv, v=qkv),
        layer_scale=True,
        head="cls",
        pooled_dim=dim,
    )


def _dinov3(config: Json) -> VitConfig:
    fields = Fields(config, _DINOV3)
    mlp_bias = fields.flag("mlp_bias")
    return VitConfig(
        family=str(config["model_type"]),
        **body_fields(fields),
        mlp_dim=fields.integer("intermediate_size"),
        gated_mlp=fields.flag("use_gated_mlp"),
        num_registers=fields.integer("num_register_tokens"),
        positions=PositionConfig(kind="rotary", grid_hw=fields.grid_hw(), theta=fields.number("rope_theta")),
        biases=_biases(
            q=fields.flag("query_bias"),
            k=fields.flag("key_bias"),
            v=fields.flag("value_bias"),
            proj=fields.flag("proj_bias"),
            fc1=mlp_bias,
            fc2=mlp_bias,
        ),
        layer_scale=True,
        head="cls",
        pooled_dim=fields.integer("hidden_size"),
    )


def _clip(config: Json) -> VitConfig:
    vision = {**config, **config.get("vision_config", {})}
    if "vision_config" in config:
        # The two-tower file's own projection is the one in use; its vision_config repeats an unused default.
        vision["projection_dim"] = config.get("projection_dim", _CLIP["projection_dim"])
    fields = Fields(vision, _CLIP)
    return VitConfig(
        family=str(config["model_type"]),
        **body_fields(fields),
        mlp_dim=fields.integer("intermediate_size"),
        positions=PositionConfig(kind="learned", grid_hw=fields.grid_hw(), prefix=1),
        biases=_biases(patch=False),
        pre_norm=True,
        norm_tokens=False,
        head="projection",
        pooled_dim=fields.integer("projection_dim"),
    )


def _siglip(config: Json) -> VitConfig:
    fields = Fields({**config, **config.get("vision_config", {})}, _SIGLIP)
    head = fields.flag("vision_use_head")
    return VitConfig(
        family=str(config["model_type"]),
        **body_fields(fields),
        mlp_dim=fields.integer("intermediate_size"),
        has_cls=False,
        positions=PositionConfig(kind="learned", grid_hw=fields.grid_hw()),
        head="attention" if head else "none",
        pooled_dim=fields.integer("hidden_size") if head else 0,
    )


FAMILIES: dict[str, Callable[[Json], VitConfig]] = {
    "clip": _clip,
    "clip_vision_model": _clip,
    "deit": _vit,
    "dinov2": _dinov2,
    "dinov2_with_registers": _dinov2,
    "dinov3_vit": _dinov3,
    "siglip": _siglip,
    "siglip_vision_model": _siglip,
    "vit": _vit,
}


def vit_config(config: Json) -> VitConfig:
    """Read a checkpoint's config.json.

    Raises:
        EncoderError: the family is not known, or a field has an odd value.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise EncoderError(f"config.json: model_type {family!r} is not known; expected one of {', '.join(FAMILIES)}")
    return FAMILIES[family](config)
