"""What a run must know of a video-LLM's vision part, whether a checkpoint is one, and the part with its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from pipeline.encode.foreign import library
from pipeline.encode.foreign.features import ForeignFeatures
from pipeline.encode.foreign.pictures import read_processor
from pipeline.encode.video_llm.families import VIDEO_LLMS
from pipeline.encode.video_llm.passes import VideoLlmGeometry, keep_tower
from pipeline.encode.video_llm.pictures import frame_spec, smart_size
from pipeline.encode.video_llm.weights import open_vision, probe_of, read_vision, vision_sha256
from pipeline.settings import Recipe
from vtm.encoders import EncoderError
from vtm.encoders.checkpoint import Checkpoint, open_checkpoint


def is_video_llm(folder_or_id: str | Path, revision: str | None = None) -> bool:
    """Whether a checkpoint is of a family of video-LLMs.

    Raises:
        EncoderError: it cannot be found; or it is one and `transformers` is not installed.
    """
    family = open_checkpoint(folder_or_id, revision=revision, weights=False).config().get("model_type")
    if family not in VIDEO_LLMS:
        return False
    if not library.is_installed():
        raise EncoderError(
            f"{folder_or_id}: {family} is run by transformers, which is not there: pip install "
            "'vtm-pipeline[transformers]'"
        )
    return True


def describe_video_llm(recipe: Recipe) -> tuple[VideoLlmGeometry, str]:
    """How the vision part is called, and the hash of the files that hold it; the part is not loaded.

    Raises:
        EncoderError: it cannot be found or run, or the recipe asks for something that it does not do.
    """
    checkpoint = _open(recipe)
    _refuse(recipe, str(checkpoint.config()["model_type"]))
    geometry = _find_geometry(checkpoint, recipe)
    return geometry, vision_sha256(checkpoint, VIDEO_LLMS[geometry.family])


def video_llm_features(recipe: Recipe, batch_frames: int, dtype: torch.dtype, device: str) -> ForeignFeatures:
    """Load the vision part of a video-LLM.

    Raises:
        EncoderError: as `describe_video_llm`; or the weights do not fit.
    """
    checkpoint = _open(recipe)
    geometry = _find_geometry(checkpoint, recipe)
    family = VIDEO_LLMS[geometry.family]
    tensors = read_vision(checkpoint, family)
    model = library.load_vision(library.read_config(checkpoint), tensors, family.parts, checkpoint.name, dtype)
    if geometry.shape.stage == "tower":
        keep_tower(model, geometry.shape)
    return ForeignFeatures(model.to(device), geometry, batch_frames)


def _open(recipe: Recipe) -> Checkpoint:
    named = open_checkpoint(recipe.encoder, revision=recipe.revision, weights=False)
    return open_vision(recipe.encoder, recipe.revision, VIDEO_LLMS[str(named.config()["model_type"])])


def _find_geometry(checkpoint: Checkpoint, recipe: Recipe) -> VideoLlmGeometry:
    config = library.read_config(checkpoint)
    family = VIDEO_LLMS[config.model_type]
    _, fields = read_processor(checkpoint, is_video=True)
    with library.in_one_line(f"{checkpoint.name}: the vision part's configuration cannot be used"):
        shape = replace(family.shape(config, fields), stage=recipe.stage)
        chooses = shape.side_px is None and recipe.size_px is None
        smart = smart_size(config.model_type, shape, fields, recipe.clip_frames) if chooses else None
    return VideoLlmGeometry(
        family=config.model_type,
        architecture=library.model_class(config).__name__,
        image=frame_spec(config.model_type, shape, fields, recipe.size_px, smart),
        smart=smart,
        shape=shape,
        probe=probe_of(checkpoint, family),
    )


def _refuse(recipe: Recipe, family: str) -> None:
    """What the tokens that a language model reads cannot be asked for."""
    refused = {
        f"--layer {recipe.layer}": recipe.layer != -1,
        f"--encoder-keep {recipe.encoder_keep}": recipe.encoder_keep != 1,
        f"--reuse-levels {recipe.reuse_levels}": recipe.reuse_levels is not None,
        "--compile": recipe.compile,
        "saliency": recipe.reads_saliency,
    }
    for option, given in refused.items():
        if given:
            raise EncoderError(
                f"{option}: of a video-LLM ({family}) the tokens are taken that its language model reads, as "
                "transformers makes them: leave it out"
            )
