"""What a run must know of its encoder before anything starts: read from the files' headers, not from the weights."""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.encode.devices import Device, DeviceKind, resolve_compute_dtype
from pipeline.encode.foreign.describe import describe_foreign, is_foreign
from pipeline.encode.video_llm.describe import describe_video_llm, is_video_llm
from pipeline.encode.video_llm.passes import VideoLlmGeometry
from pipeline.errors import SettingsError
from pipeline.run_description import EncoderDescription, VideoLlmDescription
from pipeline.settings import Recipe
from pipeline.values import PictureSpec, Resizer, SmartSize
from vtm import encoders
from vtm.encoders import EncoderError, ImageSpec
from vtm.network import NetworkError, Origin, load_network, load_scorer, stored_kind, stored_origin

log = logging.getLogger(__name__)

BATCH_FRAMES: dict[DeviceKind, int] = {"cpu": 20, "cuda": 60}
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def describe_encoder(recipe: Recipe, device: Device) -> tuple[EncoderDescription, PictureSpec]:
    """What a run must know of its encoder before anything starts, without loading its weights.

    Args:
        recipe: What decides the bytes.
        device: What the encoder will run on.

    Raises:
        SettingsError: the encoder cannot be had, or lacks something.
    """
    if recipe.compile and device.kind != "cuda":
        raise SettingsError("--compile gains on GPUs alone, and this run encodes on the CPU: leave it out")
    try:
        known = _find_encoder(recipe)
    except EncoderError as error:
        raise SettingsError(str(error)) from error
    trained = None if recipe.scorer is None else describe_trained(recipe, known)
    if trained is not None and trained.decides_count and recipe.amounts_given:
        raise SettingsError(
            f"--scorer {recipe.scorer} is a network, and its training decided how many tokens are left: leave out "
            "--keep, --tokens-per-clip and --partition-factor"
        )
    description = EncoderDescription(
        name=recipe.encoder,
        revision=recipe.revision,
        weights_sha256=known.weights_sha256,
        dim=known.dim if trained is None else trained.dim,
        compute_dtype=resolve_compute_dtype(recipe.compute_dtype, device),
        batch_frames=resolve_batch_frames(recipe, device),
        device=device.kind,
        device_names=device.record,
        vtm_sha256=None if trained is None else trained.sha256,
        vtm_decides_count=trained is not None and trained.decides_count,
        architecture=known.architecture,
        frames_per_pass=known.frames_per_pass,
        tubelet_frames=known.tubelet_frames,
        video_llm=known.video_llm,
        embedding_dim=known.embedding_dim,
    )
    picture = replace(picture_spec(known.image, recipe.resize), smart=known.smart)
    return description, chosen_pictures(picture, recipe)


def resolve_batch_frames(recipe: Recipe, device: Device) -> int:
    """How many frames the encoder takes at once: what was asked for, or what fills the device.

    A batch of a GPU has one shape, so that one larger than a clip would hold nothing but padding.
    """
    if recipe.batch_frames is not None:
        return recipe.batch_frames
    return BATCH_FRAMES["cpu"] if device.kind == "cpu" else min(BATCH_FRAMES["cuda"], recipe.clip_frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """An encoder before it is loaded; fields as in `EncoderDescription`."""

    dim: int
    image: ImageSpec
    weights_sha256: str
    architecture: str | None = None
    frames_per_pass: int = 1
    tubelet_frames: int = 1
    video_llm: VideoLlmDescription | None = None
    smart: SmartSize | None = None
    embedding_dim: int = 0


def _find_encoder(recipe: Recipe) -> _Found:
    """Our own vision transformer wherever it knows the family, else a model of `transformers`."""
    if is_video_llm(recipe.encoder, recipe.revision):
        if recipe.embedding == "always":
            raise EncoderError(
                f"--embedding always: of {recipe.encoder}, a video-LLM, no image embedding is taken: leave it out"
            )
        vision, weights_sha256 = describe_video_llm(recipe)
        return _Found(
            dim=vision.shape.channels,
            image=vision.image,
            weights_sha256=weights_sha256,
            architecture=vision.architecture,
            frames_per_pass=vision.input.frames_per_pass,
            tubelet_frames=vision.input.tubelet_frames,
            video_llm=_video_llm(vision, recipe),
            smart=vision.smart,
        )
    if recipe.size_px is not None or recipe.stage != "projected":
        option = f"--stage {recipe.stage}" if recipe.size_px is None else f"--size-px {recipe.size_px}"
        raise EncoderError(f"{option} is for video-LLMs; {recipe.encoder} is a vision encoder alone: leave it out")
    if is_foreign(recipe.encoder, recipe.revision):
        if recipe.embedding == "always":
            raise EncoderError(
                f"--embedding always: {recipe.encoder} is run by transformers, of which no image embedding is taken: "
                "leave it out"
            )
        foreign = describe_foreign(recipe)
        geometry = foreign.geometry
        return _Found(
            dim=geometry.layout.dim,
            image=geometry.image,
            weights_sha256=foreign.weights_sha256,
            architecture=geometry.architecture,
            frames_per_pass=geometry.input.frames_per_pass,
            tubelet_frames=geometry.input.tubelet_frames,
        )
    own = encoders.describe_encoder(recipe.encoder, layer=recipe.layer, revision=recipe.revision)
    return _Found(
        dim=own.dim, image=own.image, weights_sha256=own.weights_sha256, embedding_dim=_embedding_dim(recipe, own)
    )


def _embedding_dim(recipe: Recipe, own: encoders.EncoderDescription) -> int:
    """Channels of the image embedding that a run stores, 0 for none.

    Raises:
        EncoderError: it is asked for and cannot be had.
    """
    is_last = own.num_blocks == own.depth
    if recipe.embedding == "always":
        if not own.pooled_dim:
            raise EncoderError(f"--embedding always: {recipe.encoder} has no image embedding: leave it out")
        if recipe.encoder_keep != 1 and not is_last:
            raise EncoderError(
                f"--embedding always needs the blocks after --layer {recipe.layer}, at which --encoder-keep "
                f"{recipe.encoder_keep} ends: leave one of them out, or take the last block"
            )
        return own.pooled_dim
    return own.pooled_dim if recipe.embedding == "auto" and is_last and recipe.reuse_levels is None else 0


def _video_llm(vision: VideoLlmGeometry, recipe: Recipe) -> VideoLlmDescription:
    image = vision.image
    size_px = image.crop_height_px, image.crop_width_px
    tokens_per_row = math.prod(vision.grid_hw(size_px))
    unset = "tower" if vision.smart is None else "smart resize"
    return VideoLlmDescription(
        family=vision.family,
        stage=vision.shape.stage,
        merge_size=vision.shape.token_side,
        size_px=size_px,
        size_from=unset if recipe.size_px is None else "setting",
        tokens_per_row=tokens_per_row,
        source_tokens_per_s=float(tokens_per_row * recipe.fps / vision.shape.tubelet_frames),
        deepstack=vision.shape.deepstack if vision.shape.stage == "projected" else 0,
        projection_probe=vision.probe,
    )


def picture_spec(image: ImageSpec, resizer: Resizer = "torch") -> PictureSpec:
    """The preprocessor's geometry, as the decode side takes it."""
    same = [field.name for field in fields(image) if field.name in PictureSpec.__slots__]
    return PictureSpec(resizer=resizer, **{name: getattr(image, name) for name in same})


def chosen_pictures(picture: PictureSpec, recipe: Recipe) -> PictureSpec:
    """The encoder's pictures with what the recipe chooses for fields, dynamic range and transparency."""
    colour = recipe.alpha_background
    return replace(
        picture,
        tonemap=recipe.tonemap,
        deinterlace=recipe.deinterlace,
        decoder=recipe.decoder,
        alpha_background=None if colour is None else (int(colour[:2], 16), int(colour[2:4], 16), int(colour[4:], 16)),
    )


def picture_json(picture: PictureSpec) -> dict[str, Any]:
    """A picture spec as JSON data."""
    data = asdict(picture)
    # What goes without saying is left out, so that runs from before it could be said are still the same.
    if picture.smart is None:
        del data["smart"]
    if picture.decoder == "libav":
        del data["decoder"]
    return data


def check_weights(recipe: Recipe, description: EncoderDescription) -> None:
    """Refuse weights that are not the run's.

    Raises:
        SettingsError: the encoder of this name is another one on this machine, or is missing.
    """
    try:
        found = _find_encoder(recipe).weights_sha256
    except EncoderError as error:
        raise SettingsError(str(error)) from error
    if found != description.weights_sha256:
        raise SettingsError(
            f"--encoder {recipe.encoder}: its weights are {found[:12]} on this node, {description.weights_sha256[:12]} "
            "in the run: copy the same files to every node"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """What `--scorer DIR` names."""

    sha256: str
    dim: int
    """Channels of the tokens that come out."""
    decides_count: bool
    """Whether a network merges, as far as it was trained to; a scorer only places targets, or weights tokens."""


def describe_trained(recipe: Recipe, known: _Found) -> TrainedModel:
    """The trained scorer or network that `--scorer` names.

    Raises:
        SettingsError: the folder holds neither, or one for tokens of another width, encoder, output block or rate.
    """
    folder, encoder_dim = str(recipe.scorer), known.dim
    try:
        _check_origin(recipe, known)
        decides_count = recipe.strategy == "learnable" and stored_kind(folder) == "network"
        if decides_count:
            config = load_network(folder).config
            in_width, dim = config.in_width, config.widths[-1]
        else:
            in_width, dim = load_scorer(folder).config.in_width, encoder_dim
    except NetworkError as error:
        raise SettingsError(f"--scorer {folder}: {error}") from error
    if in_width != encoder_dim:
        raise SettingsError(
            f"--scorer {folder} was trained on tokens of {in_width} channels, the encoder's have {encoder_dim}"
        )
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update((Path(folder) / name).read_bytes())
    return TrainedModel(sha256=digest.hexdigest(), dim=dim, decides_count=decides_count)


def _check_origin(recipe: Recipe, known: _Found) -> None:
    folder = str(recipe.scorer)
    origin = stored_origin(folder)
    if origin is None:
        log.warning("--scorer %s does not say which encoder it was trained on: it may not fit this one", folder)
        return
    tokens = Origin(
        encoder=recipe.encoder, weights_sha256=known.weights_sha256, layer=recipe.layer, fps=str(recipe.fps)
    )
    origin.check_tokens(tokens, folder)
