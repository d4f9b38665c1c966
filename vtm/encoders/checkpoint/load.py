"""A checkpoint -> an `Encoder`, ready to run."""

from __future__ import annotations

from pathlib import Path

import torch

from vtm.encoders.checkpoint.families import vit_config
from vtm.encoders.checkpoint.files import PREPROCESSOR, open_checkpoint, read_json
from vtm.encoders.checkpoint.state import State, own_keys, present_config, read_state
from vtm.encoders.checkpoint.tensor_names import block_of
from vtm.encoders.config import VitConfig
from vtm.encoders.encoder import Encoder
from vtm.encoders.image import image_spec
from vtm.encoders.linear import pack_linear_maps
from vtm.errors import EncoderError, MergeError


def load_encoder(
    folder_or_id: str | Path,
    *,
    layer: int = -1,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    final_norm: bool | None = None,
    encoder_keep: float = 1.0,
    pooled: bool = False,
) -> Encoder:
    """Load a vision transformer from a folder in the Hugging Face format, or from the hub.

    Args:
        folder_or_id: a folder holding config.json, model.safetensors (or its shards and their index) and
            preprocessor_config.json, or a hub id `owner/name`.
        layer: the block whose output is taken, as `hidden_states` of `transformers` is indexed: 9 is the output of the
            ninth block, counted from 1; -1 that of the last, -2 that of the last but one. Later blocks are neither read
            nor built, unless `pooled` needs them.
        revision: branch, tag or commit of a hub id.
        dtype: of the weights and the arithmetic.
        device: where the encoder lives.
        final_norm: whether the tokens pass the network's final norm. Left out: as the family's `last_hidden_state` does
            for the last block (all but CLIP apply it), and not for earlier blocks, as `hidden_states` has them.
        encoder_keep: share of each frame's patch tokens that are left when the output block begins; the blocks before
            it merge the others (ToMe).
        pooled: whether the image embedding is wanted beside the tokens of an earlier block: the blocks after it run for
            it. Where the last block is the output block it is there anyway.

    Returns:
        The encoder in evaluation mode; no parameter requires a gradient.

    Raises:
        EncoderError: the checkpoint cannot be found, is of no known family, or has missing or odd tensors; or it has no
            such block, or no image embedding.
    """
    checkpoint = open_checkpoint(folder_or_id, revision=revision)
    config = vit_config(checkpoint.config())
    image = image_spec(read_json(checkpoint.folder / PREPROCESSOR), config.patch_px)
    keys = own_keys(checkpoint)
    config = present_config(config, keys)
    num_blocks = block_count(layer, config)
    if final_norm is None:
        final_norm = config.norm_tokens and num_blocks == config.num_blocks
    with torch.device("meta"):
        encoder = Encoder(
            config,
            image,
            num_blocks=num_blocks,
            final_norm=final_norm,
            encoder_keep=encoder_keep,
            pooled=pooled,
            name=checkpoint.name,
        )
    _check_schedule(encoder)
    _check_pooled(encoder, pooled)
    state = read_state(checkpoint, keys, config, num_blocks=num_blocks + len(encoder.later), grid_hw=image.grid_hw)
    _place(encoder, state, dtype)
    encoder.checkpoint = checkpoint
    encoder = encoder.requires_grad_(False).eval().to(device)
    pack_linear_maps(encoder)
    return encoder


def block_count(layer: int, config: VitConfig) -> int:
    """Blocks up to the output block `layer`, which is indexed as in `load_encoder`.

    Raises:
        EncoderError: there is no such block.
    """
    depth = config.num_blocks
    num_blocks = layer if layer > 0 else depth + 1 + layer
    if layer == 0 or not 1 <= num_blocks <= depth:
        raise EncoderError(f"layer {layer}: expected 1 to {depth}, or -1 (the last block) down to -{depth}")
    return num_blocks


def _check_schedule(encoder: Encoder) -> None:
    try:
        encoder.removals(encoder.grid_hw)
    except MergeError as error:
        raise EncoderError(f"encoder_keep {encoder.encoder_keep}: {error}") from error


def _check_pooled(encoder: Encoder, pooled: bool) -> None:
    if pooled and encoder.head is None:
        raise EncoderError(f"{encoder.name} ({encoder.config.family}) has no image embedding: leave out pooled")
    if len(encoder.later) and encoder.encoder_keep != 1:
        raise EncoderError(
            f"encoder_keep {encoder.encoder_keep} ends at the output block, but pooled needs the blocks after it: "
            "leave one of them out, or take the last block"
        )


def _place(encoder: Encoder, state: State, dtype: torch.dtype) -> None:
    """Put each tensor where it belongs, rounded once, and see that none is left over on either side."""
    expected = encoder.state_dict()
    placed: State = {}
    for name, tensor in state.items():
        outside = name.startswith(("norm.", "head."))
        key = name if outside else _key(name, len(encoder.vit.blocks))
        if key in expected:
            if tensor.shape != expected[key].shape:
                sizes = f"{tuple(tensor.shape)}, config.json makes it {tuple(expected[key].shape)}"
                raise EncoderError(f"{encoder.name}: {name} has shape {sizes}")
            placed[key] = tensor.to(dtype).contiguous()
        elif not outside:
            # A network cut off earlier has no use for its norm and head; anything else is a surprise.
            raise EncoderError(f"{encoder.name}: the weights hold {name}, for which config.json's family has no place")
    for key in expected.keys() - placed.keys():
        raise EncoderError(
            f"{encoder.name}: the weights lack {key.removeprefix('vit.')}, which config.json's family has"
        )
    encoder.load_state_dict(placed, assign=True)


def _key(name: str, num_blocks: int) -> str:
    """Where a tensor of the transformer belongs: in it, or among the blocks that run after it."""
    block = block_of(name)
    if block is None or block < num_blocks:
        return f"vit.{name}"
    return f"later.{block - num_blocks}.{name.split('.', 2)[2]}"
