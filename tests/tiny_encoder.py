"""The encoder of most tests: made here, so that it needs no download."""

from __future__ import annotations

import json
from pathlib import Path


def make_tiny_encoder(folder: Path, *, blocks: int = 2) -> Path:
    """A random DINOv2 of few blocks: 35 x 21 px, patches of 7, so a grid of 3 rows and 5 columns."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(3)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=blocks, num_attention_heads=3, image_size=35, patch_size=7, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"height": 21, "width": 35},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder
