"""What a run must know of an encoder that `transformers` runs, and whether it is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.encode.foreign import library
from pipeline.encode.foreign.features import ForeignFeatures
from pipeline.encode.foreign.model import Geometry, find_geometry, load_foreign
from pipeline.settings import Recipe
from vtm.encoders import EncoderError
from vtm.encoders.checkpoint import open_checkpoint
from vtm.encoders.checkpoint.families import FAMILIES, vit_config


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignDescription:
    """A checkpoint in a few values."""

    geometry: Geometry
    weights_sha256: str


def is_foreign(folder_or_id: str | Path, revision: str | None = None) -> bool:
    """Whether a checkpoint is of no family that the project's own vision transformer knows.

    Raises:
        EncoderError: the checkpoint cannot be found; or it is foreign and `transformers` is not installed.
    """
    config = open_checkpoint(folder_or_id, revision=revision, weights=False).config()
    if config.get("model_type") in FAMILIES:
        return False
    if library.is_installed():
        return True
    try:
        vit_config(config)
    except EncoderError as error:
        raise EncoderError(f"{error}; or, for other models, pip install 'vtm-pipeline[transformers]'") from error
    return True


def describe_foreign(recipe: Recipe) -> ForeignDescription:
    """Describe what `foreign_features` would load; no weight is loaded.

    Raises:
        EncoderError: it cannot be found or run, or the recipe asks for something that only our own encoder does.
    """
    checkpoint = open_checkpoint(recipe.encoder, revision=recipe.revision)
    weights_sha256 = checkpoint.weights_sha256()
    geometry = find_geometry(checkpoint, recipe.layer)
    _refuse(recipe, geometry.architecture)
    return ForeignDescription(geometry=geometry, weights_sha256=weights_sha256)


def foreign_features(recipe: Recipe, batch_frames: int, dtype: torch.dtype, device: str) -> ForeignFeatures:
    """Load a model of `transformers`.

    Raises:
        EncoderError: as `describe_foreign`; or the weights do not fit.
    """
    checkpoint = open_checkpoint(recipe.encoder, revision=recipe.revision)
    geometry = find_geometry(checkpoint, recipe.layer)
    return ForeignFeatures(load_foreign(checkpoint, geometry, dtype, device), geometry, batch_frames)


def _refuse(recipe: Recipe, architecture: str) -> None:
    """What needs to see inside the encoder."""
    if recipe.encoder_keep != 1:
        raise EncoderError(
            f"--encoder-keep {recipe.encoder_keep} merges inside our own vision transformer; {architecture} is run by "
            "transformers and merged after it: leave it out, and say how far with --keep"
        )
    if recipe.reuse_levels is not None:
        raise EncoderError(
            f"--reuse-levels {recipe.reuse_levels} encodes single patches with our own vision transformer; "
            f"{architecture} is run by transformers: leave it out"
        )
    if recipe.compile:
        raise EncoderError(
            f"--compile is for our own vision transformer; {architecture} is run by transformers: leave it out"
        )
    if recipe.reads_saliency:
        raise EncoderError(
            f"--strategy saliency reads the attention of our own vision transformer; {architecture} is run by "
            "transformers: choose another, such as coverage"
        )
