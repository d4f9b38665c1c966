"""What a query is encoded by: the very encoder of the run for pictures, the text tower of its checkpoint for text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.encode.clip_encoder import ClipEncoder
from pipeline.encode.describe import describe_encoder
from pipeline.encode.devices import this_device
from pipeline.errors import SettingsError
from pipeline.read_settings import build
from pipeline.settings import Recipe
from pipeline.shards.run_folder import picture_of
from pipeline.values import ClipSpec, DecodedClip, TokenSet
from pipeline.video.resize import resize_picture
from vtm.encoders import EncoderError, load_text_encoder
from vtm.encoders.checkpoint import open_checkpoint

DECIDES_TOKENS = (
    "encoder",
    "revision",
    "layer",
    "encoder_keep",
    "resize",
    "tonemap",
    "deinterlace",
    "alpha_background",
    "embedding",
)
"""Settings of a run that a picture's tokens depend on before they are merged."""


class PictureEncoder:
    """A run's encoder, loaded, for single pictures of any size."""

    def __init__(self, run: dict[str, Any], encoder: str | None = None) -> None:
        """Load it, and see that it is the run's.

        Args:
            run: run.json's content.
            encoder: Folder or hub id that has the same weights today; the run's own where nothing is said.

        Raises:
            SettingsError: it cannot be had, or has other weights.
        """
        recipe = _query_recipe(run, encoder)
        device = this_device("cuda" if torch.cuda.is_available() else "cpu")
        description, _ = describe_encoder(recipe, device)
        for what in ("weights_sha256", "vtm_sha256"):
            if getattr(description, what) != run["encoder"].get(what):
                raise SettingsError(_other_weights(recipe.encoder))
        self._picture = picture_of(run)
        self._encoder = ClipEncoder(recipe, description, device.kind)

    def encode(self, picture_HW3: NDArray[np.uint8]) -> TokenSet:
        """A picture, uint8 RGB, as a clip of one frame, its patches unmerged unless the run's encoder merges them.

        Raises:
            EncodeError: the encoder failed.
        """
        height_px, width_px, _ = picture_HW3.shape
        frame_hw3 = resize_picture(picture_HW3, (height_px, width_px), self._picture)
        spec = ClipSpec(video_id="query", index=0, start_ns=0, end_ns=1, frame_pts=(0,), frame_instants=(1,))
        clip = DecodedClip(spec=spec, frames=frame_hw3[None], frame_time_ns=np.zeros(1, np.int64), damaged_frames=0)
        return self._encoder.encode(clip, "query")


def embed_text(run: dict[str, Any], text: str, encoder: str | None = None) -> Tensor:
    """A text in the space of the run's image embeddings, (E,) float32.

    Args:
        run: run.json's content.
        text: Of any length; what the tower cannot take is cut off.
        encoder: As for `PictureEncoder`.

    Raises:
        SettingsError: the encoder has no text tower, or cannot be had, or has other weights.
    """
    name, revision = encoder or run["encoder"]["name"], run["encoder"]["revision"]
    try:
        tower = load_text_encoder(name, revision=revision)
        if open_checkpoint(name, revision=revision).weights_sha256() != run["encoder"]["weights_sha256"]:
            raise SettingsError(_other_weights(name))
        return tower.embed([text])[0].float()
    except EncoderError as error:
        raise SettingsError(f"--text cannot be searched for: {error}") from error


def _query_recipe(run: dict[str, Any], encoder: str | None) -> Recipe:
    """The run's recipe as far as it decides a picture's tokens; what merges clips is left out, unless it is trained."""
    settings = run["settings"] | ({} if encoder is None else {"encoder": encoder})
    if run["encoder"].get("vtm_decides_count"):
        return replace(build(Recipe, settings), dtype="float32", batch_frames=1, compile=False)
    chosen = {name: settings.get(name) for name in DECIDES_TOKENS}
    return build(Recipe, chosen | {"strategy": "none", "dtype": "float32", "batch_frames": 1})


def _other_weights(name: str) -> str:
    return f"--encoder {name} has other weights than the run's encoder: name the folder or hub id that it was made with"
