"""Checkpoints as they come: sharded, incomplete, odd, out of reach. Each fault is one line that names it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from random_checkpoints import write_checkpoint
from safetensors.torch import load_file, save_file

from vtm.encoders import EncoderError, load_encoder
from vtm.encoders.checkpoint import open_checkpoint

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint("dinov2", tmp_path / "checkpoint")


def fault(folder: Path | str, **options: object) -> str:
    with pytest.raises(EncoderError) as caught:
        load_encoder(folder, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def edit_weights(folder: Path, rename: dict[str, str | None]) -> None:
    weights = load_file(folder / WEIGHTS)
    kept = {rename.get(name, name): tensor for name, tensor in weights.items()}
    save_file({name: tensor for name, tensor in kept.items() if name is not None}, folder / WEIGHTS)


def test_sharded_weights_are_the_same_network(folder: Path, tmp_path: Path) -> None:
    sharded = write_checkpoint("dinov2", tmp_path / "sharded", max_shard_size="30KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    pixels = torch.randn(1, 3, 35, 35)
    whole, parts = load_encoder(folder), load_encoder(sharded)
    assert torch.equal(whole(pixels).patches, parts(pixels).patches)
    assert whole.weights_sha256 == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert len(parts.weights_sha256) == 64
    assert parts.weights_sha256 != whole.weights_sha256


def test_weights_are_hashed_only_where_someone_asks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr("vtm.encoders.checkpoint.files.file_sha256", lambda path: hashed.append(path) or "ab")
    encoder = load_encoder(folder)
    assert not hashed
    assert encoder.weights_sha256 == encoder.weights_sha256 == "ab"
    assert len(hashed) == 1


def test_no_frame_is_an_error(folder: Path) -> None:
    with pytest.raises(EncoderError, match=r"one frame or more, got \(0, 3, 35, 35\)"):
        load_encoder(folder)(torch.zeros(0, 3, 35, 35))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    sharded = write_checkpoint("dinov2", tmp_path, max_shard_size="30KB")
    gone = sorted(sharded.glob("*.safetensors"))[1]
    gone.unlink()
    assert gone.name in fault(sharded)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "preprocessor_config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in fault(folder)


def test_pickles_are_not_opened(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in fault(folder)
    assert "safetensors" in fault(folder)


def test_broken_files_are_named(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"no safetensors")
    assert WEIGHTS in fault(folder)
    (folder / "config.json").write_text("{")
    assert "config.json" in fault(folder)
    (folder / "config.json").write_text("[]")
    assert "expected a JSON object" in fault(folder)


def test_unknown_families_are_named(folder: Path) -> None:
    edit_config(folder, model_type="convnext")
    assert "'convnext' is not known" in fault(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_act", "mish"),
        ("patch_size", [7, 5]),
        ("num_attention_heads", 5),
        ("hidden_size", "24"),
        ("mlp_ratio", "x"),
    ],
)
def test_odd_fields_are_named(folder: Path, field: str, value: object) -> None:
    edit_config(folder, **{field: value})
    assert field in fault(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit_weights(folder, {"encoder.layer.1.mlp.fc2.bias": None})
    assert "blocks.1.fc2.bias" in fault(folder)
    assert load_encoder(folder, layer=1).dim == 24, "a block that is not built needs no tensors"


def test_a_tensor_without_a_place_is_named(folder: Path) -> None:
    edit_weights(folder, {"encoder.layer.1.mlp.fc2.bias": "encoder.layer.1.mlp.fc9.bias"})
    assert "encoder.layer.1.mlp.fc9.bias" in fault(folder)


def test_a_known_tensor_of_another_family_is_named(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({**weights, "embeddings.register_tokens": torch.zeros(1, 2, 24)}, folder / WEIGHTS)
    assert "registers" in fault(folder)


def test_another_shape_than_the_configs_is_named(folder: Path) -> None:
    edit_config(folder, image_size=42)
    assert "positions" in fault(folder)


def test_a_revision_belongs_to_the_hub(folder: Path) -> None:
    assert "only a hub id has revisions" in fault(folder, revision="main")


def test_neither_folder_nor_hub_id(tmp_path: Path) -> None:
    assert "no such folder" in fault(tmp_path / "nowhere")
    assert "no such folder" in fault("just-a-name")


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "facebook/dinov2-small" in fault("facebook/dinov2-small")
    assert "name a folder" in fault("facebook/dinov2-small")


def test_checkpoints_name_their_tensors_files(folder: Path) -> None:
    files = open_checkpoint(folder).files_of()
    assert files["layernorm.weight"] == folder / WEIGHTS
