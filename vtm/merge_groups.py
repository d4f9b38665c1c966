"""The groups of a clip that are merged pair by pair: their sums, and what their losses are compared by.

Letters: M groups at the start, K of them left, C channels, J channels of jitter, A = C + J.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

JITTER_CHANNELS = 8
JITTER = 2.0**-10
"""Length of a group's jitter, relative to its direction. Of equal tokens all would have the first as their nearest, so
that one pair merged a round. A jitter that depends on the index alone makes their losses differ by about 1e-6."""
LEAST_COUNT = 1e-3
"""Share of the mean count by which a group of weight 0 jitters."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The groups that are left."""

    index_K: Tensor
    """int64, which of the M each grew from."""
    alive_K: Tensor
    """bool; all of them on a CPU."""
    sum_KC: Tensor
    """float64 S."""
    norm_K: Tensor
    """float64 |S|."""
    height_K: Tensor
    """float32, of the last merge; 0 before any."""
    compared_KA: Tensor
    """float32 (K, C + J): S with its jitter, by which losses are compared."""
    first_K: Tensor
    """int64, first frame spanned."""
    last_K: Tensor


def tensors_of(groups: Groups) -> tuple[Tensor, ...]:
    """All fields, in order."""
    return tuple(getattr(groups, name) for name in Groups.__slots__)


def initial_groups(sum_MC: Tensor, count_M: Tensor, frames_M2: Tensor | None) -> Groups:
    """The groups before any merge; arguments as for `vtm.agglomeration.agglomerate`."""
    total, device = len(sum_MC), sum_MC.device
    index_M = torch.arange(total, device=device)
    count_M = count_M.double()
    jitter_scale_M1 = torch.maximum(count_M, LEAST_COUNT * count_M.mean())[:, None]
    jitter_MJ = JITTER * jitter_scale_M1 * _jitter(total, device)
    sum_MC = sum_MC.double()
    frames_M2 = index_M.new_zeros(total, 2) if frames_M2 is None else frames_M2
    return Groups(
        index_K=index_M,
        alive_K=torch.ones(total, dtype=torch.bool, device=device),
        sum_KC=sum_MC,
        norm_K=torch.linalg.vector_norm(sum_MC, dim=1),
        height_K=torch.zeros(total, device=device),
        compared_KA=torch.cat((sum_MC, jitter_MJ), dim=1).float(),
        first_K=frames_M2[:, 0],
        last_K=frames_M2[:, 1],
    )


def _jitter(total: int, device: torch.device) -> Tensor:
    """(M, J) float64 in [-1, 1), uniform: a hash of the index."""
    bits = torch.arange(total * JITTER_CHANNELS, device=device).view(total, JITTER_CHANNELS)
    for factor, shift in ((0x9E3779B1, 15), (0x85EBCA77, 13)):
        bits = (bits * factor) & 0xFFFFFFFF
        bits = bits ^ (bits >> shift)
    return bits.double() / 2**31 - 1


def first_alive(groups: Groups, rows: int) -> tuple[Groups, Tensor]:
    """As many rows, with the groups that are alive first, in order; and whether all of these are among them."""
    if rows >= len(groups.index_K):
        return groups, torch.ones((), dtype=torch.bool, device=groups.index_K.device)
    # A stable sort keeps the order, with a size known beforehand.
    first_L = (~groups.alive_K).to(torch.uint8).argsort(stable=True)[:rows]
    return Groups(*(x.index_select(0, first_L) for x in tensors_of(groups))), groups.alive_K.sum() <= rows
