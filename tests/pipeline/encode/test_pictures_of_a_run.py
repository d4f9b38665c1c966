"""How a recipe's choices on pictures reach run.json, and come back from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.encode.describe import chosen_pictures, picture_json
from pipeline.run_description import EncoderDescription, RunDescription
from pipeline.settings import Recipe
from pipeline.shards.run_folder import picture_of
from pipeline.values import PictureSpec

PLAIN = PictureSpec(
    resize_mode="exact", resize_height_px=32, resize_width_px=32, crop_height_px=32, crop_width_px=32, patch_px=8
)
ENCODER = EncoderDescription(name="e", revision=None, weights_sha256="a", dim=7, compute_dtype="float32")


def described(recipe: Recipe) -> RunDescription:
    picture = picture_json(chosen_pictures(PLAIN, recipe))
    return RunDescription(recipe=recipe, encoder=ENCODER, picture=picture)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(decoder="nvdec"),
        Recipe(tonemap=True, deinterlace=True),
        Recipe(alpha_background="0a0B0c", decoder="nvdec"),
    ],
)
def test_a_reader_takes_the_pictures_of_the_run(recipe: Recipe) -> None:
    assert picture_of(described(recipe).to_json()) == chosen_pictures(PLAIN, recipe)


def test_what_decodes_is_part_of_the_fingerprint() -> None:
    assert described(Recipe(decoder="nvdec")).fingerprint() != described(Recipe()).fingerprint()


def test_a_run_from_before_nvdec_could_be_chosen_goes_on() -> None:
    assert "decoder" not in str(described(Recipe()).fingerprinted_settings())
    assert picture_json(replace(PLAIN, decoder="nvdec"))["decoder"] == "nvdec"
