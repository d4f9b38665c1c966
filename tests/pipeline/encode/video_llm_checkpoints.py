"""Small random video-LLMs of `transformers`, made offline, on disk as the hub has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
CLIP = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
VOCABULARY = 301
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    **SPECIAL,
}
QWEN_IDS = {"image_token_id": 290, "video_token_id": 291, "vision_start_token_id": 292, "vision_end_token_id": 293}
TOWER = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 4}
SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False, **TOWER}


def _mrope(section: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section}


def _smart(name: str, patch_px: int) -> dict[str, Any]:
    return {
        "video_processor_type": name,
        "patch_size": patch_px,
        "merge_size": 2,
        "size": {"shortest_edge": 8 * 8 * 4, "longest_edge": 8 * 8 * 24},
        "resample": 3,
        **HALF,
    }


def _qwen2_vl() -> tuple[Any, dict[str, Any]]:
    config = transformers.Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": _mrope([1, 1, 2])},
        vision_config={"depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 2, "patch_size": 4},
        **QWEN_IDS,
    )
    return transformers.Qwen2VLForConditionalGeneration(config), _smart("Qwen2VLVideoProcessor", 4)


def _qwen2_5_vl() -> tuple[Any, dict[str, Any]]:
    vision = {"depth": 2, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 32, "intermediate_size": 24}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": _mrope([1, 1, 2])},
        vision_config=vision | {"patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]},
        **QWEN_IDS,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config), _smart("Qwen2VLVideoProcessor", 4)


def _qwen3_vl() -> tuple[Any, dict[str, Any]]:
    vision = {"depth": 3, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 32, "intermediate_size": 24}
    deepstack = {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
    config = transformers.Qwen3VLConfig(
        text_config={**TEXT, "head_dim": 8, "rope_parameters": _mrope([2, 1, 1])},
        vision_config=vision | deepstack | {"patch_size": 4, "temporal_patch_size": 2},
        **QWEN_IDS,
    )
    return transformers.Qwen3VLForConditionalGeneration(config), _smart("Qwen3VLVideoProcessor", 4)


def _llava_onevision() -> tuple[Any, dict[str, Any]]:
    config = transformers.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **TEXT},
        vision_config=SIGLIP | {"image_size": 20},
        image_token_index=290,
        video_token_index=291,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = {"video_processor_type": "LlavaOnevisionVideoProcessor", "size": {"height": 20, "width": 20}, **HALF}
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor


def _llava_next_video() -> tuple[Any, dict[str, Any]]:
    config = transformers.LlavaNextVideoConfig(
        text_config={"model_type": "llama", **TEXT},
        vision_config={"model_type": "clip_vision_model", **TOWER, "image_size": 24, "projection_dim": 8},
        image_token_index=290,
        video_token_index=291,
        vision_feature_layer=-2,
        spatial_pool_mode="average",
    )
    sizes = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True}
    processor = {"video_processor_type": "LlavaNextVideoVideoProcessor", **sizes, **CLIP}
    return transformers.LlavaNextVideoForConditionalGeneration(config), processor


def _internvl() -> tuple[Any, dict[str, Any]]:
    vision = TOWER | {"image_size": [24, 24], "patch_size": [4, 4]}
    config = transformers.InternVLConfig(
        text_config={"model_type": "qwen2", **TEXT}, vision_config=vision, image_token_id=290, downsample_ratio=0.5
    )
    processor = {"video_processor_type": "InternVLVideoProcessor", "size": {"height": 24, "width": 24}, **CLIP}
    return transformers.InternVLForConditionalGeneration(config), processor


def _smolvlm() -> tuple[Any, dict[str, Any]]:
    config = transformers.SmolVLMConfig(
        text_config={"model_type": "llama", **TEXT},
        vision_config=TOWER | {"image_size": 24},
        image_token_id=290,
        scale_factor=2,
        pad_token_id=2,
    )
    processor = {"video_processor_type": "SmolVLMVideoProcessor", "max_image_size": {"longest_edge": 24}, **HALF}
    return transformers.SmolVLMForConditionalGeneration(config), processor


def _video_llama_3() -> tuple[Any, dict[str, Any]]:
    config = transformers.VideoLlama3Config(
        text_config={"model_type": "qwen2", **TEXT},
        vision_config=TOWER,
        image_token_id=290,
        video_token_id=291,
    )
    return transformers.VideoLlama3ForConditionalGeneration(config), _smart("VideoLlama3VideoProcessor", 4)


MAKERS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "llava_onevision": _llava_onevision,
    "llava_next_video": _llava_next_video,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "video_llama_3": _video_llama_3,
}


def make_video_llm(family: str, folder: Path, *, shards: int = 1, seed: int = 7) -> Path:
    """Write a checkpoint whose weights are so large that what is wrong shows, and rounding does not."""
    torch.manual_seed(seed)
    model, preprocessor = MAKERS[family]()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim > 1:
                tensor.mul_(8 if "language_model" in name or "text_model" in name else 4)
            else:
                tensor.add_(0.1 * torch.randn_like(tensor))
    model.eval().save_pretrained(folder)
    (folder / "video_preprocessor_config.json").write_text(json.dumps(preprocessor))
    if shards > 1:
        _in_shards(folder, shards)
    return folder


def _in_shards(folder: Path, shards: int) -> None:
    """One file -> as many, cut in order of name, and their index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    per_shard = -(-len(names) // shards)
    weight_map = {}
    for number, start in enumerate(range(0, len(names), per_shard), start=1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        part = names[start : start + per_shard]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
