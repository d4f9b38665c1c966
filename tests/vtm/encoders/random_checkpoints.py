"""Small random checkpoints of every family, written by `transformers` itself, and what `transformers` makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

BODY: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": 35,
    "patch_size": 7,
}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "vocab_size": 50,
    "max_position_embeddings": 11,
    "bos_token_id": 48,
    "eos_token_id": 49,
}
PICTURE = {"height": 35, "width": 35}


@dataclass(frozen=True)
class Family:
    make: Callable[[], Any]
    processor: Mapping[str, Any]
    """preprocessor_config.json."""
    prefix: int
    """Tokens before the patches."""
    load: str
    """Class of `transformers` that reads the checkpoint."""
    pooled: bool = True
    final_norm: Callable[[Any], Any] = lambda model: model.layernorm
    forward: Callable[[Any], Callable[..., Any]] = lambda model: model
    resizes: bool = False
    """Whether the model takes any size of pixels unasked."""


def _clip_like(kind: str, vision: Mapping[str, Any], text: Mapping[str, Any]) -> Any:
    config = getattr(transformers, f"{kind}Config")(vision_config={**BODY, **vision}, text_config={**TEXT, **text})
    return getattr(transformers, f"{kind}Model")(config)


EXACT = {"size": PICTURE, "resample": 3}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
SHORTEST = {"size": {"shortest_edge": 41}, "crop_size": PICTURE, "do_center_crop": True, "resample": 3}
t = transformers

FAMILIES: dict[str, Family] = {
    "vit": Family(
        lambda: t.ViTModel(t.ViTConfig(**BODY, layer_norm_eps=1e-12)),
        {"image_processor_type": "ViTImageProcessor", **EXACT, "resample": 2, **HALF},
        1,
        "ViTModel",
    ),
    "vit classifier": Family(
        lambda: t.ViTForImageClassification(t.ViTConfig(**BODY)),
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 35, "resample": 2, **HALF},
        1,
        "ViTModel",
        pooled=False,
    ),
    "vit without qkv bias": Family(
        lambda: t.ViTModel(t.ViTConfig(**BODY, qkv_bias=False), add_pooling_layer=False),
        {"image_processor_type": "ViTImageProcessor", **EXACT, **HALF},
        1,
        "ViTModel",
        pooled=False,
    ),
    "deit": Family(
        lambda: t.DeiTModel(t.DeiTConfig(**BODY)),
        {
            "image_processor_type": "DeiTImageProcessor",
            "size": {"height": 40, "width": 40},
            "crop_size": PICTURE,
            **IMAGENET,
        },
        2,
        "DeiTModel",
    ),
    "dinov2": Family(
        lambda: t.Dinov2Model(t.Dinov2Config(**BODY, mlp_ratio=2)),
        {"image_processor_type": "BitImageProcessor", **SHORTEST, **IMAGENET},
        1,
        "Dinov2Model",
        resizes=True,
    ),
    "dinov2 swiglu": Family(
        lambda: t.Dinov2Model(t.Dinov2Config(**BODY, mlp_ratio=2, use_swiglu_ffn=True)),
        {"image_processor_type": "BitImageProcessor", **SHORTEST, **IMAGENET},
        1,
        "Dinov2Model",
        resizes=True,
    ),
    "dinov2 registers": Family(
        lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**BODY, mlp_ratio=2, num_register_tokens=3)),
        {"image_processor_type": "BitImageProcessor", **SHORTEST, **IMAGENET},
        4,
        "Dinov2WithRegistersModel",
        resizes=True,
    ),
    "dinov3": Family(
        lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(**BODY, num_register_tokens=3)),
        {"image_processor_type": "DINOv3ViTImageProcessorFast", **EXACT, "resample": 2, **IMAGENET},
        4,
        "DINOv3ViTModel",
        final_norm=lambda model: model.norm,
        resizes=True,
    ),
    "dinov3 gated": Family(
        lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(**BODY, num_register_tokens=2, use_gated_mlp=True, key_bias=True)),
        {"image_processor_type": "DINOv3ViTImageProcessorFast", **EXACT, "resample": 2, **IMAGENET},
        3,
        "DINOv3ViTModel",
        final_norm=lambda model: model.norm,
        resizes=True,
    ),
    "clip": Family(
        lambda: t.CLIPModel(t.CLIPConfig(vision_config=BODY, text_config=TEXT, projection_dim=20)),
        {"image_processor_type": "CLIPImageProcessor", **SHORTEST},
        1,
        "CLIPModel",
        final_norm=lambda model: model.vision_model.post_layernorm,
        forward=lambda model: model.get_image_features,
    ),
    "clip tower": Family(
        lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**BODY)),
        {"image_processor_type": "CLIPImageProcessor", **SHORTEST},
        1,
        "CLIPVisionModel",
        final_norm=lambda model: model.post_layernorm,
    ),
    "siglip": Family(
        lambda: _clip_like("Siglip", {}, {"projection_size": 24}),
        {"image_processor_type": "SiglipImageProcessor", **EXACT, "resample": 2, **HALF},
        0,
        "SiglipVisionModel",
        final_norm=lambda model: model.post_layernorm,
    ),
    "siglip without head": Family(
        lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**BODY, vision_use_head=False)),
        {"image_processor_type": "SiglipImageProcessor", **EXACT, **HALF},
        0,
        "SiglipVisionModel",
        pooled=False,
        final_norm=lambda model: model.post_layernorm,
    ),
}


def write_checkpoint(name: str, folder: Path, *, seed: int = 0, max_shard_size: str = "5GB") -> Path:
    """A checkpoint of the family whose every parameter is random: norms, biases and layer scales too."""
    family = FAMILIES[name]
    model = family.make().double()
    randomise(model, seed)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(family.processor)))
    return folder


def randomise(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.3 * noise if parameter.ndim > 1 else 1.0 + 0.3 * noise)


@dataclass(frozen=True)
class Reference:
    blocks: tuple[Tensor, ...]
    """Output of each block."""
    last_hidden_state: Tensor
    normed: Tensor
    """Output of the last block, with the final norm."""
    pooled: Tensor | None


def reference(name: str, folder: Path, pixels: Tensor) -> Reference:
    """What `transformers` makes of the pixels, in their dtype."""
    family = FAMILIES[name]
    # Eager attention computes softmax in float32 whatever the model's dtype.
    model = getattr(transformers, family.load).from_pretrained(folder, dtype=pixels.dtype, attn_implementation="sdpa")
    blocks: list[Tensor] = []
    tower = getattr(model, "vision_model", model)
    for block in next(module for module in tower.modules() if isinstance(module, torch.nn.ModuleList)):
        block.register_forward_hook(lambda _module, _args, output: blocks.append(output))
    with torch.no_grad():
        output = family.forward(model.eval())(pixels, **({} if family.resizes else {"interpolate_pos_encoding": True}))
        pooled = output.pooler_output if family.pooled else None
        return Reference(tuple(blocks), output.last_hidden_state, family.final_norm(model)(blocks[-1]), pooled)
