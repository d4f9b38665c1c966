"""What a checkpoint is, read from its files without building the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vtm.encoders.checkpoint.families import vit_config
from vtm.encoders.checkpoint.files import PREPROCESSOR, open_checkpoint, read_json
from vtm.encoders.checkpoint.load import block_count
from vtm.encoders.checkpoint.state import own_keys, present_config
from vtm.encoders.image import ImageSpec, image_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDescription:
    """A checkpoint in a few values."""

    name: str
    """As the user named it."""
    dim: int
    """D, channels of a token."""
    num_blocks: int
    """Blocks up to the output block."""
    depth: int
    """Blocks that the checkpoint has."""
    pooled_dim: int
    """E, channels of the image embedding; 0 where the checkpoint has none."""
    image: ImageSpec
    weights_sha256: str


def describe_encoder(folder_or_id: str | Path, *, layer: int = -1, revision: str | None = None) -> EncoderDescription:
    """Describe what `load_encoder` with the same arguments would load.

    Raises:
        EncoderError: it cannot be found, is of no known family, lacks a file, or has no such block.
    """
    checkpoint = open_checkpoint(folder_or_id, revision=revision)
    config = vit_config(checkpoint.config())
    config = present_config(config, own_keys(checkpoint))
    return EncoderDescription(
        name=checkpoint.name,
        dim=config.dim,
        num_blocks=block_count(layer, config),
        depth=config.num_blocks,
        pooled_dim=config.pooled_dim,
        image=image_spec(read_json(checkpoint.folder / PREPROCESSOR), config.patch_px),
        weights_sha256=checkpoint.weights_sha256(),
    )
