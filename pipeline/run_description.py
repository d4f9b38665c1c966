"""What produced a run folder: written as run.json, and hashed into the fingerprint that resuming compares."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Literal

from pipeline.settings import Recipe

SCHEMA_VERSION = 2
_NOT_FINGERPRINTED = (
    *("encoder", "revision", "scorer", "compute_dtype", "keep", "reuse_levels", "compile", "embedding"),
    *("size_px", "stage", "decoder"),
)
"""Settings whose effect is said in another way, or that say what goes without saying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLlmDescription:
    """What a cache says of the video-LLM whose language model can read it."""

    family: str
    """`model_type` of `transformers`."""
    stage: str
    """`projected`: after merger or projector, what the language model reads. `tower`: before it."""
    merge_size: int
    """Patches along a side of a token's square: a token represents merge_size * merge_size patches of a token row."""
    size_px: tuple[int, int]
    """Height and width of the frames that it sees; with `smart resize` those of a video of 720 x 1280."""
    size_from: str
    """`setting`, `tower` (it takes no other) or `smart resize`: of each video, by the limits in `picture`."""
    tokens_per_row: int
    """Tokens of a step of the grid in time at that size, before merging."""
    source_tokens_per_s: float
    """Tokens a second of video at that size, before merging."""
    deepstack: int
    """D = dim / (1 + deepstack) channels of a token, then as many for each block whose features are added later on."""
    projection_probe: str
    """Hash of a part of the projection's weights: tells one model from another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDescription:
    """What must be known of an encoder before it runs; goes into run.json and the fingerprint."""

    name: str
    revision: str | None
    weights_sha256: str
    dim: int
    compute_dtype: str
    """The arithmetic's dtype after `auto` was resolved."""
    batch_frames: int = 20
    """Frames that the encoder takes at once."""
    device: Literal["cuda", "cpu"] = "cpu"
    """What the encoders run on."""
    device_names: str = ""
    """Names of the GPUs, their compute capabilities and the versions of their libraries: for the record alone."""
    vtm_sha256: str | None = None
    """Hash of the trained scorer or network, where one is used."""
    vtm_decides_count: bool = False
    """Whether it is a network, which merges as far as it was trained to."""
    architecture: str | None = None
    """Class of `transformers` that runs it; None for the project's own vision transformer."""
    frames_per_pass: int = 1
    """A video model's own clip length, into which a clip's frames are cut."""
    tubelet_frames: int = 1
    """Frames of a tubelet, which is one step of the grid in time; the last one may hold fewer."""
    video_llm: VideoLlmDescription | None = None
    """Of a video-LLM's vision part."""
    embedding_dim: int = 0
    """Channels of the column `embedding`; 0 where it is null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDescription:
    """What every shard of a run folder has in common; written as run.json."""

    recipe: Recipe
    encoder: EncoderDescription
    picture: dict[str, Any] = field(default_factory=dict)
    """The preprocessor's resize and crop, as data."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that touch pixels, tokens or files."""

    def fingerprinted_settings(self) -> dict[str, Any]:
        """Every setting that decides bytes. Paths and names do not: the hash of the weights represents them."""
        recipe = recipe_json(self.recipe)
        for name in _NOT_FINGERPRINTED:
            recipe.pop(name)
        if self.encoder.embedding_dim:
            recipe["embedding_dim"] = self.encoder.embedding_dim
        if self.recipe.compile:
            recipe["compile"] = True
        if self.recipe.reuse_levels is not None:
            recipe["reuse_levels"] = float(self.recipe.reuse_levels)
        if self.encoder.architecture is not None:
            foreign = ("architecture", "frames_per_pass", "tubelet_frames")
            recipe |= {name: getattr(self.encoder, name) for name in foreign}
        if self.encoder.video_llm is not None:
            recipe |= {"stage": self.encoder.video_llm.stage, "merge_size": self.encoder.video_llm.merge_size}
        return recipe | {
            "keep": self.recipe.share_kept,
            "schema_version": SCHEMA_VERSION,
            "encoder_weights_sha256": self.encoder.weights_sha256,
            "vtm_sha256": self.encoder.vtm_sha256,
            "compute_dtype": self.encoder.compute_dtype,
            "batch_frames": self.encoder.batch_frames,
            "device": self.encoder.device,
            "picture": self.picture,
        }

    def fingerprint(self) -> str:
        """16 hex digits: a hash of `fingerprinted_settings`."""
        text = json.dumps(self.fingerprinted_settings(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """The content of run.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint(),
            "settings": recipe_json(self.recipe),
            "fingerprinted": self.fingerprinted_settings(),
            "encoder": asdict(self.encoder),
            "versions": self.versions,
        }


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON data: fractions as text."""
    return {k: str(v) if isinstance(v, Fraction) else v for k, v in asdict(recipe).items()}
