"""The encoded tokens of a clip in one row, and which of them represents each token of each frame.

Frames follow each other; of each frame its prefix tokens, then those of its patches that are encoded.

Letters: T frames, N patches, P prefix tokens, S = P + N tokens of a frame, E encoded tokens of the clip, n of them in a
group, F frames that these are of, B frames of a batch, Q queries of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from vtm.encoders.reuse.changes import is_encoded
from vtm.upload import to_device


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Frames whose attention is one call; their queries are padded to the most that one of them has."""

    query_BQ: Tensor
    """The encoded tokens of each frame; padding repeats its last."""
    kept_n: Tensor
    """Which of the B * Q are no padding."""
    row_BS: Tensor
    """The encoded token of the clip that represents each token of the frame."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(to_device(x, device) for x in (self.query_BQ, self.kept_n, self.row_BS)))


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Encoded tokens that are projected, and pass the MLP, together."""

    first_row: int
    """Of the clip's encoded tokens."""
    frame_n: Tensor
    place_n: Tensor
    """Which of its frame's S tokens it is."""
    batches: tuple[Batch, ...]
    """Of all its frames, in order."""

    def to(self, device: torch.device) -> Group:
        """The same, with what attention needs on a device; pixels are picked on the CPU."""
        return replace(self, batches=tuple(batch.to(device) for batch in self.batches))


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """A clip's encoded tokens."""

    row_TS: Tensor
    """int64, the encoded token that represents each token."""
    groups: tuple[Group, ...]
    """Every encoded token is in one of them, in order."""
    batch_frames: int
    """Most frames of a batch."""

    @property
    def num_rows(self) -> int:
        """E."""
        last = self.groups[-1]
        return last.first_row + len(last.place_n)

    def rows_in_batches(self) -> tuple[Tensor, ...]:
        """(B, S) of `row_TS` each."""
        return torch.split(self.row_TS, self.batch_frames)

    def to(self, device: torch.device) -> Packing:
        """The same on a device."""
        return Packing(
            to_device(self.row_TS, device), tuple(group.to(device) for group in self.groups), self.batch_frames
        )


def pack(source_TN: Tensor, num_prefix: int, *, group_rows: int, batch_frames: int, query_step: int = 1) -> Packing:
    """Lay out the encoded tokens of a clip.

    Args:
        source_TN: the frame whose token represents each patch, as `reuse_map` returns it.
        num_prefix: tokens of each frame before its patches; they are always encoded.
        group_rows: most tokens of a group, whichever frames they are of.
        batch_frames: frames whose attention is computed in one call.
        query_step: the queries of a frame are padded to a multiple of this, or to all tokens of a frame: a GPU's
            attention is planned anew for every number of them.
    """
    own_TS = pad(is_encoded(source_TN), (num_prefix, 0), value=True)
    frame_T1 = torch.arange(len(own_TS))[:, None]
    source_TS = torch.cat((frame_T1.expand(-1, num_prefix), source_TN), dim=1)
    row_TS = (own_TS.flatten().cumsum(0).view_as(own_TS) - 1).gather(0, source_TS)
    frame_E, place_E = own_TS.nonzero(as_tuple=True)
    groups = []
    for start in range(0, len(frame_E), group_rows):
        frame_n, place_n = frame_E[start : start + group_rows], place_E[start : start + group_rows]
        batches = tuple(_batches(frame_n, start, row_TS, batch_frames, query_step))
        groups.append(Group(start, frame_n, place_n, batches))
    return Packing(row_TS, tuple(groups), batch_frames)


def _batches(frame_n: Tensor, first_row: int, row_TS: Tensor, batch_frames: int, query_step: int) -> Iterator[Batch]:
    frame_F, count_F = torch.unique_consecutive(frame_n, return_counts=True)
    first_F = first_row + count_F.cumsum(0) - count_F
    for start in range(0, len(frame_F), batch_frames):
        now = slice(start, start + batch_frames)
        count_B1 = count_F[now, None]
        most = -(-int(count_B1.max()) // query_step) * query_step
        query_Q = torch.arange(min(most, row_TS.shape[1]))
        query_BQ = first_F[now, None] + torch.minimum(query_Q, count_B1 - 1)
        yield Batch(query_BQ, (query_Q < count_B1).flatten().nonzero()[:, 0], row_TS[frame_F[now]])
