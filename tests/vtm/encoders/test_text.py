"""Text towers embed as `transformers` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from random_checkpoints import TEXT, write_checkpoint
from tokenizers import Tokenizer, models, pre_tokenizers

from vtm.encoders import EncoderError, load_text_encoder

RELATIVE = {torch.float64: 1e-9, torch.float32: 1e-5}
IDS = torch.tensor([[48, 3, 7, 49, 1, 1, 1, 1, 1, 1, 1], [48, 9, 2, 11, 30, 5, 44, 8, 21, 17, 49]])


@pytest.fixture(scope="module", params=["clip", "siglip"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, write_checkpoint(request.param, tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("dtype", RELATIVE)
def test_embeddings_equal_transformers(checkpoint: tuple[str, Path], dtype: torch.dtype) -> None:
    name, folder = checkpoint
    kind = {"clip": "CLIPModel", "siglip": "SiglipModel"}[name]
    model = getattr(transformers, kind).from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    with torch.no_grad():
        expected = model.get_text_features(input_ids=IDS).pooler_output
    got = load_text_encoder(folder, dtype=dtype)(IDS)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < RELATIVE[dtype] * expected.abs().max()


def test_openais_end_of_text_is_the_largest_id(tmp_path: Path) -> None:
    folder = write_checkpoint("clip", tmp_path)
    expected = load_text_encoder(folder)(IDS)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(load_text_encoder(folder)(IDS), expected)


def test_texts_are_cut_padded_and_truncated(checkpoint: tuple[str, Path]) -> None:
    _, folder = checkpoint
    words = {"<pad>": 0, "a": 3, "red": 4, "car": 5, "?": 6}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    tower = load_text_encoder(folder)
    length = TEXT["max_position_embeddings"]
    ids = torch.tensor([[3, 4, 5] + [0] * (length - 3), [5] * length])
    assert torch.equal(tower.embed(["a red car", "car " * 20]), tower(ids))


def test_towers_without_text_and_without_tokenizer_say_so(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="'dinov2' has no text tower"):
        load_text_encoder(write_checkpoint("dinov2", tmp_path / "dinov2"))
    tower = load_text_encoder(write_checkpoint("clip", tmp_path / "clip"))
    with pytest.raises(EncoderError, match=r"tokenizer\.json"):
        tower.embed(["a car"])
