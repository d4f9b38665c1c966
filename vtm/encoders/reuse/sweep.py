"""A clip through the encoder where an earlier token represents each patch that has not changed.

Only encoded tokens are projected and pass the MLP. Their queries meet the keys of all N patches of the frame: those of
the patches that are not encoded are the keys and values, in the same block, of the tokens that represent them. So a
token attends to its whole frame, and the one approximation is that the token of an unchanged patch is not updated by
what has changed around it. All frames of a clip are in the same block at the same time; none waits for another in it.

Letters: T frames, h x w pixels, N patches, P prefix tokens, S tokens of a frame, E encoded tokens of the clip, n of
them in a group, B frames of a batch, Q queries of a frame, D channels, a heads, d channels of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtm.encoders.attention import gather_values
from vtm.encoders.encoder import CPU_ROWS, Encoder
from vtm.encoders.image import encoder_frames, standardise
from vtm.encoders.output import EncoderOutput
from vtm.encoders.positions import Rotary
from vtm.encoders.reuse.changes import is_encoded
from vtm.encoders.reuse.packing import Batch, Group, Packing, pack
from vtm.encoders.saliency import attention_saliency
from vtm.encoders.threads import computing_alone, map_on_threads
from vtm.encoders.vit import Block
from vtm.errors import EncoderError
from vtm.upload import to_device

CPU_LEAST_ROWS = 64
"""Tokens that pass a matrix product together on one thread: with fewer, it waits for the weights."""
QUERY_LENGTHS = 8
"""Of a GPU: so many numbers of queries are planned for, at the most."""
CPU_GROUPS = 16
"""Parts that a clip's encoded tokens are cut into where there are enough: work for so many threads."""


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A group of encoded tokens between two blocks."""

    group: Group
    x_1nD: Tensor
    rotary: Rotary | None
    """(n, d) each."""


@dataclass(frozen=True, slots=True, eq=False)
class _Projected:
    """Queries, keys and values of all E tokens in a block; fields as in `AttentionInputs`. Blocks overwrite them."""

    queries_Ead: Tensor
    keys_Ead: Tensor
    values_Ead: Tensor
    plain_keys_ED: Tensor

    @classmethod
    def of(cls, encoder: Encoder, num_rows: int) -> _Projected:
        """Room for so many tokens."""
        heads, head_dim = encoder.config.num_heads, encoder.config.head_dim
        # Inference mode is a thread's own, and its tensors are not to be written to outside of it.
        with torch.inference_mode(False):
            room = torch.empty(4, num_rows, heads, head_dim, dtype=encoder.dtype, device=encoder.device)
        queries, keys, values, plain_keys = room
        return cls(queries, keys, values, plain_keys.flatten(1))


def encode_changed(
    encoder: Encoder,
    frames: NDArray[np.uint8] | Tensor,
    source_TN: Tensor,
    *,
    saliency: bool = False,
    batch_frames: int = 20,
) -> EncoderOutput:
    """Encode a clip's frames, but of their patches only those that are their own.

    On a CPU a clip's bytes do not depend on the number of threads. Where nothing is reused, the outcome is that of
    `encoder(encoder.normalise(frames))`, as far as kernels round alike for any number of rows.

    Args:
        encoder: one that merges nothing inside.
        frames: (T, h, w, 3) uint8 RGB at the encoder's size.
        source_TN: the frame whose token represents each patch, from `reuse_map`.
        saliency: whether to compute the block's attention on each patch.
        batch_frames: frames at a time on a GPU; elsewhere without effect.

    Returns:
        All N patches of each frame; `pooled` is left out.

    Raises:
        EncoderError: frames or map of another kind, or an encoder that merges inside.
    """
    frames_Thw3 = encoder_frames(frames, encoder.image).cpu()
    source_TN = _checked(encoder, len(frames_Thw3), source_TN.cpu())
    on_cpu, num_prefix = encoder.device.type == "cpu", encoder.config.num_prefix
    with computing_alone() as threads:
        if on_cpu:
            packing = pack(source_TN, num_prefix, group_rows=_cpu_rows(source_TN, num_prefix), batch_frames=1)
            return sweep(encoder, frames_Thw3, packing, threads, saliency=saliency)
        group_rows = batch_frames * (num_prefix + source_TN.shape[1])
        step = -(-(num_prefix + source_TN.shape[1]) // QUERY_LENGTHS)
        packing = pack(source_TN, num_prefix, group_rows=group_rows, batch_frames=batch_frames, query_step=step)
        return sweep(encoder, frames_Thw3, packing.to(encoder.device), 1, saliency=saliency)


def _cpu_rows(source_TN: Tensor, num_prefix: int) -> int:
    """Tokens of a group; of the plain path's whole frames where all are encoded, so that products round as there."""
    tokens = num_prefix + source_TN.shape[1]
    num_rows = int(is_encoded(source_TN).sum()) + len(source_TN) * num_prefix
    return min(max(num_rows // CPU_GROUPS, CPU_LEAST_ROWS), max(1, CPU_ROWS // tokens) * tokens)


def sweep(
    encoder: Encoder, frames_Thw3: Tensor, packing: Packing, num_threads: int, *, saliency: bool = False
) -> EncoderOutput:
    """All groups through a block, then through the next; `encode_changed` for a packing made already."""
    config = encoder.config
    steps = map_on_threads(partial(_embedded, encoder, _cut(encoder, frames_Thw3)), packing.groups, num_threads)
    projected = _Projected.of(encoder, packing.num_rows)
    for block in encoder.vit.block_list():
        map_on_threads(partial(_project, block, projected), steps, num_threads)
        steps = map_on_threads(partial(_transformed, block, projected), steps, num_threads)
    x_ED = torch.cat([step.x_1nD[0] for step in steps])
    if encoder.final_norm and encoder.norm is not None:
        x_ED = encoder.norm(x_ED)
    first, every_row, patch_row = config.num_prefix, packing.row_TS.flatten(), packing.row_TS[:, config.num_prefix :]
    tokens_TSD = x_ED.index_select(0, every_row).view(*packing.row_TS.shape, -1)
    looks = partial(_saliency, projected, num_prefix=first, has_cls=config.has_cls)
    return EncoderOutput(
        patches=tokens_TSD[:, first:],
        keys=projected.plain_keys_ED.index_select(0, patch_row.flatten()).view(*patch_row.shape, -1),
        cls=tokens_TSD[:, 0] if config.has_cls else None,
        registers=tokens_TSD[:, int(config.has_cls) : first] if config.num_registers else None,
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


def _cut(encoder: Encoder, frames_Thw3: Tensor) -> Tensor:
    """(T * N, p, p, 3) levels of single patches."""
    patch_px, (rows, columns) = encoder.config.patch_px, encoder.grid_hw
    whole = frames_Thw3[:, : rows * patch_px, : columns * patch_px]
    cut = whole.reshape(len(whole), rows, patch_px, columns, patch_px, 3).transpose(2, 3)
    return cut.reshape(-1, patch_px, patch_px, 3)


def _embedded(encoder: Encoder, patches_Fpp3: Tensor, group: Group) -> _Step:
    """The group's tokens as they enter the first block, and their rotation."""
    vit, num_prefix, device = encoder.vit, encoder.config.num_prefix, encoder.device
    is_patch_n = group.place_n >= num_prefix
    patch_m = group.place_n[is_patch_n] - num_prefix
    number_m = group.frame_n[is_patch_n] * math.prod(encoder.grid_hw) + patch_m
    pixels_mpp3 = standardise(patches_Fpp3.index_select(0, number_m), encoder.image, device).to(encoder.dtype)
    x_mD: Tensor = vit.patch(pixels_mpp3.permute(0, 3, 1, 2).flatten(1)[None])[0]
    place_n = to_device(group.place_n, device)
    if vit.grid_positions is not None:
        x_mD = x_mD + vit.grid_positions.index_select(0, to_device(patch_m, device))
    # Where each token lies among the prefix tokens followed by the group's patches.
    order_n = to_device(torch.where(is_patch_n, num_prefix - 1 + is_patch_n.cumsum(0), group.place_n), device)
    x_1nD = torch.cat((vit.prefix, x_mD)).index_select(0, order_n)[None]
    if vit.pre_norm is not None:
        x_1nD = vit.pre_norm(x_1nD)
    if vit.grid_rotary is None:
        return _Step(group, x_1nD, None)
    cos_Nd, sin_Nd = vit.grid_rotary
    # Prefix tokens have no place: they turn by nothing.
    cos_Sd = torch.cat((cos_Nd.new_ones(num_prefix, cos_Nd.shape[1]), cos_Nd))
    sin_Sd = torch.cat((sin_Nd.new_zeros(num_prefix, sin_Nd.shape[1]), sin_Nd))
    return _Step(group, x_1nD, (cos_Sd.index_select(0, place_n), sin_Sd.index_select(0, place_n)))


def _project(block: Block, projected: _Projected, step: _Step) -> None:
    """Write down the queries, keys and values of the group's tokens."""
    part = block.project(step.x_1nD, step.rotary)
    rows = slice(step.group.first_row, step.group.first_row + step.x_1nD.shape[1])
    projected.queries_Ead[rows] = part.queries[0].transpose(0, 1)
    projected.keys_Ead[rows] = part.keys[0].transpose(0, 1)
    projected.values_Ead[rows] = part.values[0].transpose(0, 1)
    projected.plain_keys_ED[rows] = part.plain_keys[0]


def _transformed(block: Block, projected: _Projected, step: _Step) -> _Step:
    """The group after the block."""
    gathered_nD = torch.cat([_gathered(projected, batch) for batch in step.group.batches])
    return replace(step, x_1nD=block.transform(block.add(step.x_1nD, gathered_nD[None])))


def _gathered(projected: _Projected, batch: Batch) -> Tensor:
    """What the batch's encoded tokens gather from all tokens of their frames, (tokens, D)."""
    mixed_BQD = gather_values(
        _rows(projected.queries_Ead, batch.query_BQ),
        _rows(projected.keys_Ead, batch.row_BS),
        _rows(projected.values_Ead, batch.row_BS),
    )
    padded_nD = mixed_BQD.flatten(0, 1)
    return padded_nD if len(batch.kept_n) == len(padded_nD) else padded_nD.index_select(0, batch.kept_n)


def _saliency(projected: _Projected, row_BS: Tensor, *, num_prefix: int, has_cls: bool) -> Tensor:
    """(B, N); a token that represents a patch has the attention that the patch would have."""
    queries_BaQd = _rows(projected.queries_Ead, row_BS[:, :1] if has_cls else row_BS)
    keys_BaSd = _rows(projected.keys_Ead, row_BS)
    return attention_saliency(queries_BaQd, keys_BaSd, row_BS.shape[1] - num_prefix, has_cls=has_cls)


def _rows(packed_Ead: Tensor, row_BS: Tensor) -> Tensor:
    """Rows of the E tokens, (B, a, S, d)."""
    picked = packed_Ead.index_select(0, row_BS.flatten())
    return picked.view(*row_BS.shape, *packed_Ead.shape[1:]).transpose(1, 2)
