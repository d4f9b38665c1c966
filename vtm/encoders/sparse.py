"""A clip through the encoder where an earlier token stands for each patch that has not changed.

Only encoded tokens are projected, ask, and pass the MLP; each asks all N patches of its frame: the keys and values of
the others are those that their stand-ins have in the same block. So a token's surroundings are complete, and the one
approximation is that an unchanged patch does not notice what has changed around it. All frames of a clip are in the
same block at the same time; none waits for another within it.

Letters: T frames, h x w pixels, N patches, P prefix tokens, S tokens of a frame, E encoded tokens of the clip, n of
them in a group, B frames of a batch, Q queries of a frame, D channels, a heads, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtm.encoders.attention import Attention, gather_values
from vtm.encoders.encoder import Encoder
from vtm.encoders.errors import EncoderError
from vtm.encoders.image import encoder_frames, standardise
from vtm.encoders.output import EncoderOutput
from vtm.encoders.packing import Batch, Group, Packing, pack
from vtm.encoders.positions import Rotary
from vtm.encoders.saliency import attention_saliency
from vtm.encoders.threads import computing_alone, map_on_threads
from vtm.encoders.vit import Block

CPU_GROUP_ROWS = 128
"""Tokens that pass a matrix product together on one thread: with fewer, it is the weights that are waited for."""


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A group of encoded tokens between two blocks."""

    group: Group
    x_1nD: Tensor
    rotary: Rotary | None
    """(n, d) each."""


def encode_changed(
    encoder: Encoder,
    frames: NDArray[np.uint8] | Tensor,
    source_TN: Tensor,
    *,
    saliency: bool = False,
    batch_frames: int = 20,
) -> EncoderOutput:
    """Encode a clip's frames, but of their patches only those that stand for themselves.

    On a CPU a clip's bytes do not depend on the number of threads. Where nothing is reused, they are those of
    `encoder(encoder.normalise(frames))`.

    Args:
        encoder: one that merges nothing inside.
        frames: (T, h, w, 3) uint8 RGB at the encoder's size.
        source_TN: the frame whose token stands for each patch, from `reuse_map`.
        saliency: whether to compute how much the block's attention looks at each patch.
        batch_frames: frames at a time on a GPU; elsewhere without effect.

    Returns:
        All N patches of each frame; `pooled` is left out.

    Raises:
        EncoderError: frames or map of another kind, or an encoder that merges inside.
    """
    frames_Thw3 = encoder_frames(frames, encoder.image).cpu()
    source_TN = _checked(encoder, len(frames_Thw3), source_TN.cpu())
    on_cpu, num_prefix = encoder.device.type == "cpu", encoder.config.num_prefix
    at_once = 1 if on_cpu else batch_frames
    rows = CPU_GROUP_ROWS if on_cpu else batch_frames * (num_prefix + source_TN.shape[1])
    with computing_alone() as threads:
        packing = pack(source_TN, num_prefix, group_rows=rows, batch_frames=at_once).to(encoder.device)
        return _swept(encoder, frames_Thw3, packing, threads if on_cpu else 1, saliency=saliency)


def _swept(
    encoder: Encoder, frames_Thw3: Tensor, packing: Packing, num_threads: int, *, saliency: bool
) -> EncoderOutput:
    """The sweep: all groups through a block, then through the next."""
    config = encoder.config
    steps = map_on_threads(partial(_embedded, encoder, frames_Thw3), packing.groups, num_threads)
    *earlier, last = encoder.vit.block_list()
    for block in earlier:
        attention = _projected(block, steps, num_threads)
        steps = map_on_threads(partial(_transformed, block, attention), steps, num_threads)
    attention = _projected(last, steps, num_threads)
    steps = map_on_threads(partial(_transformed, last, attention), steps, num_threads)
    x_1ED = torch.cat([step.x_1nD for step in steps], dim=1)
    tokens_ED = (encoder.norm(x_1ED) if encoder.final_norm and encoder.norm is not None else x_1ED)[0]
    looks = partial(_saliency, attention, num_prefix=config.num_prefix, has_cls=config.has_cls)
    tokens_TSD = tokens_ED[packing.row_TS]
    return EncoderOutput(
        patches=tokens_TSD[:, config.num_prefix :],
        keys=attention.plain_keys[0][packing.row_TS[:, config.num_prefix :]],
        cls=tokens_TSD[:, 0] if config.has_cls else None,
        registers=tokens_TSD[:, int(config.has_cls) : config.num_prefix] if config.num_registers else None,
        saliency=torch.cat(map_on_threads(looks, packing.rows_in_batches(), num_threads)) if saliency else None,
    )


def _checked(encoder: Encoder, num_frames: int, source_TN: Tensor) -> Tensor:
    if encoder.encoder_keep != 1:
        raise EncoderError(
            f"encoder_keep {encoder.encoder_keep} dissolves the patches that reuse refers to: leave one of them out"
        )
    rows, columns = encoder.grid_hw
    if tuple(source_TN.shape) != (num_frames, rows * columns):
        raise EncoderError(
            f"the map is {tuple(source_TN.shape)}, expected {(num_frames, rows * columns)}, frames and patches"
        )
    known = (source_TN >= 0) & (source_TN < num_frames)
    if not known.all() or not torch.equal(source_TN.gather(0, source_TN), source_TN):
        raise EncoderError("the map names frames in which the patch is not encoded; reuse_map() makes sound ones")
    return source_TN


def _embedded(encoder: Encoder, frames_Thw3: Tensor, group: Group) -> _Step:
    """The group's tokens as they enter the first block, and their rotation."""
    vit, num_prefix = encoder.vit, encoder.config.num_prefix
    is_patch_n = group.place_n >= num_prefix
    patch_m = group.place_n[is_patch_n] - num_prefix
    pixels_mppc = _patches(encoder, frames_Thw3, group.frame_n[is_patch_n], patch_m)
    x_1mD: Tensor = vit.patch(pixels_mppc.permute(0, 3, 1, 2).flatten(1)[None])
    place_n = group.place_n.to(encoder.device)
    if vit.grid_positions is not None:
        x_1mD = x_1mD + vit.grid_positions[patch_m.to(encoder.device)]
    # Where each token lies among the prefix tokens followed by the group's patches.
    order_n = torch.where(is_patch_n, num_prefix - 1 + is_patch_n.cumsum(0), group.place_n).to(encoder.device)
    x_1nD = torch.cat((vit.prefix[None], x_1mD), dim=1)[:, order_n]
    if vit.pre_norm is not None:
        x_1nD = vit.pre_norm(x_1nD)
    if vit.grid_rotary is None:
        return _Step(group, x_1nD, None)
    cos_Nd, sin_Nd = vit.grid_rotary
    # Prefix tokens have no place: they turn by nothing.
    cos_Sd = torch.cat((cos_Nd.new_ones(num_prefix, cos_Nd.shape[1]), cos_Nd))
    sin_Sd = torch.cat((sin_Nd.new_zeros(num_prefix, sin_Nd.shape[1]), sin_Nd))
    return _Step(group, x_1nD, (cos_Sd[place_n], sin_Sd[place_n]))


def _patches(encoder: Encoder, frames_Thw3: Tensor, frame_m: Tensor, patch_m: Tensor) -> Tensor:
    """(m, p, p, 3) normalised pixels of single patches, in the encoder's dtype."""
    patch_px, (rows, columns) = encoder.config.patch_px, encoder.grid_hw
    whole = frames_Thw3[:, : rows * patch_px, : columns * patch_px]
    cut = whole.reshape(len(whole), rows, patch_px, columns, patch_px, 3).transpose(2, 3)
    levels_mppc = cut[frame_m, patch_m // columns, patch_m % columns]
    return standardise(levels_mppc, encoder.image, encoder.device).to(encoder.dtype)


def _projected(block: Block, steps: Sequence[_Step], num_threads: int) -> Attention:
    """Queries, keys and values of all E tokens, a batch of one."""
    parts = map_on_threads(lambda step: block.project(step.x_1nD, step.rotary), steps, num_threads)
    return Attention(
        queries=torch.cat([part.queries for part in parts], dim=2),
        keys=torch.cat([part.keys for part in parts], dim=2),
        values=torch.cat([part.values for part in parts], dim=2),
        plain_keys=torch.cat([part.plain_keys for part in parts], dim=1),
    )


def _transformed(block: Block, attention: Attention, step: _Step) -> _Step:
    """The group after the block."""
    gathered_nD = torch.cat([_gathered(attention, batch) for batch in step.group.batches])
    return replace(step, x_1nD=block.transform(block.add(step.x_1nD, gathered_nD[None])))


def _gathered(attention: Attention, batch: Batch) -> Tensor:
    """What the batch's encoded tokens gather from all tokens of their frames, (tokens, D)."""
    mixed_BQD = gather_values(
        _rows(attention.queries, batch.query_BQ),
        _rows(attention.keys, batch.row_BS),
        _rows(attention.values, batch.row_BS),
    )
    return mixed_BQD.flatten(0, 1)[batch.kept_n]


def _saliency(attention: Attention, row_BS: Tensor, *, num_prefix: int, has_cls: bool) -> Tensor:
    """(B, N); a stand-in looks at what the patch it stands for would look at."""
    queries_BaQd = _rows(attention.queries, row_BS[:, :1] if has_cls else row_BS)
    keys_BaSd = _rows(attention.keys, row_BS)
    return attention_saliency(queries_BaQd, keys_BaSd, row_BS.shape[1] - num_prefix, has_cls=has_cls)


def _rows(packed_1aEd: Tensor, row_BS: Tensor) -> Tensor:
    """Rows of the E tokens, (B, a, S, d)."""
    heads, width = packed_1aEd.shape[1], packed_1aEd.shape[3]
    picked = packed_1aEd[0].index_select(1, row_BS.flatten())
    return picked.view(heads, *row_BS.shape, width).transpose(0, 1)
