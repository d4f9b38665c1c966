"""The column `embedding`: the image embedding that `transformers` makes of a clip's frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from pipeline.encode.clip_encoder import ClipEncoder
from pipeline.encode.describe import describe_encoder
from pipeline.encode.devices import Device
from pipeline.errors import SettingsError
from pipeline.run_description import RunDescription
from pipeline.settings import Recipe
from pipeline.values import ClipSpec, DecodedClip, TokenSet
from pipeline.verify import clip_problems
from tests.vtm.encoders.random_checkpoints import write_checkpoint

CPU = Device(kind="cpu", name="cpu")
FRAMES = np.random.default_rng(5).integers(0, 255, (3, 35, 35, 3), dtype=np.uint8)


def encoded(recipe: Recipe) -> TokenSet:
    description, _ = describe_encoder(recipe, CPU)
    spec = ClipSpec(video_id="ab" * 16, index=0, start_ns=0, end_ns=3, frame_pts=(0, 1, 2), frame_instants=(1, 1, 1))
    clip = DecodedClip(spec=spec, frames=FRAMES, frame_time_ns=np.arange(3), damaged_frames=0)
    return ClipEncoder(recipe, description, "cpu").encode(clip, "film.mp4")


def recipe_of(folder: Path, **changes: object) -> Recipe:
    settings = {"encoder": str(folder), "compute_dtype": "float32", "batch_frames": 2, "keep": 0.2} | changes
    return Recipe(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("family", ["clip", "siglip", "dinov2"])
def test_it_is_the_mean_of_what_transformers_makes_of_each_frame(family: str, layer: int, tmp_path: Path) -> None:
    folder = write_checkpoint(family, tmp_path)
    clip = encoded(recipe_of(folder, layer=layer, embedding="auto" if layer == -1 else "always"))
    processor = transformers.AutoImageProcessor.from_pretrained(folder, do_resize=False, do_center_crop=False)
    pixels = processor(list(FRAMES), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(folder).eval()
        features = model(pixel_values=pixels) if family == "dinov2" else model.get_image_features(pixels)
    each = torch.nn.functional.normalize(features.pooler_output, dim=1)
    expected = torch.nn.functional.normalize(each.mean(dim=0), dim=0).numpy()
    assert clip.embedding is not None
    np.testing.assert_allclose(clip.embedding, expected, rtol=0, atol=1e-5)
    assert clip_problems(clip) == []


def test_when_it_is_left_out(tmp_path: Path) -> None:
    folder = write_checkpoint("dinov2", tmp_path)
    for changes in ({"layer": 1}, {"embedding": "never"}, {"reuse_levels": 2.0}):
        assert encoded(recipe_of(folder, **changes)).embedding is None


def test_it_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    folder = write_checkpoint("dinov2", tmp_path)
    recipes = [recipe_of(folder, embedding=choice) for choice in ("auto", "always", "never")]
    runs = [RunDescription(recipe=r, encoder=describe_encoder(r, CPU)[0]).fingerprint() for r in recipes]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("siglip without head", {}, "has no image embedding"),
        ("dinov2", {"layer": 1, "encoder_keep": 0.5}, "needs the blocks after --layer 1"),
    ],
)
def test_what_cannot_be_had(family: str, changes: dict[str, object], message: str, tmp_path: Path) -> None:
    recipe = recipe_of(write_checkpoint(family, tmp_path), embedding="always", **changes)
    with pytest.raises(SettingsError, match=message):
        describe_encoder(recipe, CPU)


def test_reuse_and_an_embedding_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="leave out --embedding always"):
        Recipe(reuse_levels=2.0, embedding="always")
