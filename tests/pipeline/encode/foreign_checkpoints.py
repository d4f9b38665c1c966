"""Small random models of `transformers` that the project's own vision transformer does not know, made offline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.4, 0.5, 0.6]}
BODY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
VIDEO = {"image_size": 32, "patch_size": 8}


def picture(name: str, height: int, width: int, **changes: Any) -> dict[str, Any]:
    """A preprocessor's file: an exact resize."""
    file = {"do_resize": True, "size": {"height": height, "width": width}, "resample": 3, "do_center_crop": False}
    return {"image_processor_type": name, **file, "do_rescale": True, "do_normalize": True, **HALF, **changes}


def video(name: str, size: int) -> dict[str, Any]:
    """A preprocessor's file: shortest edge and crop."""
    sizes = {"size": {"shortest_edge": size + 4}, "crop_size": {"height": size, "width": size}}
    return {"video_processor_type": name, **sizes, "do_center_crop": True, "resample": 2, **HALF}


def _beit() -> tuple[Any, dict[str, Any]]:
    config = transformers.BeitConfig(**BODY, image_size=35, patch_size=7, use_absolute_position_embeddings=True)
    return transformers.BeitModel(config), picture("BeitImageProcessor", 35, 35)


def _data2vec() -> tuple[Any, dict[str, Any]]:
    config = transformers.Data2VecVisionConfig(**BODY, image_size=28, patch_size=7)
    return transformers.Data2VecVisionModel(config), picture("BeitFeatureExtractor", 28, 28)


def _swin() -> tuple[Any, dict[str, Any]]:
    sizes = {"depths": [1, 2], "num_heads": [2, 4], "embed_dim": 12, "window_size": 4}
    config = transformers.SwinConfig(image_size=[48, 80], patch_size=4, **sizes)
    return transformers.SwinModel(config), picture("ViTImageProcessor", 48, 80)


def _chinese_clip() -> tuple[Any, dict[str, Any]]:
    text = BODY | {"vocab_size": 11, "max_position_embeddings": 9}
    config = transformers.ChineseCLIPConfig(
        text_config=text, vision_config=BODY | {"image_size": 28, "patch_size": 7}, projection_dim=12
    )
    return transformers.ChineseCLIPModel(config), picture("ChineseCLIPImageProcessor", 28, 28)


def _convnext() -> tuple[Any, dict[str, Any]]:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16, 24], depths=[1, 1, 1], num_stages=3, image_size=64)
    file = picture("ConvNextImageProcessor", 0, 0, size={"shortest_edge": 64}, crop_pct=0.875)
    return transformers.ConvNextModel(config), file


def _resnet() -> tuple[Any, dict[str, Any]]:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    file = picture("ConvNextImageProcessor", 0, 0, size={"shortest_edge": 41}, crop_pct=0.875)
    return transformers.ResNetModel(config), file


def _videomae() -> tuple[Any, dict[str, Any]]:
    config = transformers.VideoMAEConfig(**BODY, **VIDEO, num_frames=4, tubelet_size=2, use_mean_pooling=False)
    old = {"feature_extractor_type": "VideoMAEFeatureExtractor", "size": {"shortest_edge": 36}, "resample": 2}
    return transformers.VideoMAEModel(config), old | {"crop_size": {"height": 32, "width": 32}} | HALF


def _vjepa2() -> tuple[Any, dict[str, Any]]:
    predictor = {"pred_hidden_size": 12, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    sizes = {"crop_size": 32, "patch_size": 8, "frames_per_clip": 6, "tubelet_size": 2, "num_attention_heads": 3}
    config = transformers.VJEPA2Config(hidden_size=36, num_hidden_layers=2, **sizes, **predictor)
    return transformers.VJEPA2Model(config), video("VJEPA2VideoProcessor", 32)


def _timesformer() -> tuple[Any, dict[str, Any]]:
    config = transformers.TimesformerConfig(**BODY, **VIDEO, num_frames=3)
    return transformers.TimesformerModel(config), video("TimesformerVideoProcessor", 32)


def _vivit() -> tuple[Any, dict[str, Any]]:
    config = transformers.VivitConfig(**BODY, image_size=32, num_frames=4, tubelet_size=[2, 8, 8])
    return transformers.VivitModel(config), video("VivitVideoProcessor", 32) | {"rescale_factor": 1 / 127.5}


MAKERS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "beit": _beit,
    "chinese_clip": _chinese_clip,
    "convnext": _convnext,
    "data2vec": _data2vec,
    "resnet": _resnet,
    "swin": _swin,
    "timesformer": _timesformer,
    "videomae": _videomae,
    "vivit": _vivit,
    "vjepa2": _vjepa2,
}
VIDEO_FAMILIES = ("timesformer", "videomae", "vivit", "vjepa2")


def make_foreign(family: str, folder: Path) -> Path:
    """Write a checkpoint; its tensors are drawn so that no token looks like another."""
    torch.manual_seed(7)
    model, preprocessor = MAKERS[family]()
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.2)
    model.eval().save_pretrained(folder)
    name = "video_preprocessor_config.json" if "video_processor_type" in preprocessor else "preprocessor_config.json"
    (folder / name).write_text(json.dumps(preprocessor))
    return folder
