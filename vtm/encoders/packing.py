"""The encoded tokens of a clip in one row, and which of them stands for each token of each frame.

Frames follow each other; of each frame its prefix tokens, then those of its patches that are encoded.

Letters: T frames, N patches, P prefix tokens, S = P + N tokens of a frame, E encoded tokens of the clip, n of them in a
group, B frames of a batch, Q queries of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from vtm.encoders.reuse import is_encoded


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Frames whose attention is one call; their queries are padded to the most that one of them has."""

    query_BQ: Tensor
    """The encoded tokens of each frame; padding repeats its last."""
    kept_n: Tensor
    """Which of the B * Q are no padding."""
    row_BS: Tensor
    """The encoded token of the clip that stands for each token of the frame."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.query_BQ.to(device), self.kept_n.to(device), self.row_BS.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Encoded tokens that are projected, and pass the MLP, together."""

    frame_n: Tensor
    place_n: Tensor
    """Which of its frame's S tokens it is."""
    batches: tuple[Batch, ...]
    """Of all frames in the group, in order."""

    def to(self, device: torch.device) -> Group:
        """The same, with what attention needs on a device; pixels are picked on the CPU."""
        return replace(self, batches=tuple(batch.to(device) for batch in self.batches))


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """A clip's encoded tokens."""

    row_TS: Tensor
    """int64, the encoded token that stands for each token."""
    groups: tuple[Group, ...]
    """Every encoded token is in one of them, in order."""
    batch_frames: int
    """Most frames of a batch."""

    def rows_in_batches(self) -> tuple[Tensor, ...]:
        """(B, S) of `row_TS` each."""
        return torch.split(self.row_TS, self.batch_frames)

    def to(self, device: torch.device) -> Packing:
        """The same on a device."""
        return Packing(self.row_TS.to(device), tuple(group.to(device) for group in self.groups), self.batch_frames)


def pack(source_TN: Tensor, num_prefix: int, *, group_rows: int, batch_frames: int) -> Packing:
    """Lay out the encoded tokens of a clip.

    Args:
        source_TN: the frame whose token stands for each patch, as `reuse_map` returns it.
        num_prefix: tokens of each frame before its patches; they are always encoded.
        group_rows: most tokens in a group, which holds at least one frame.
        batch_frames: frames whose attention is computed in one call.
    """
    own_TS = pad(is_encoded(source_TN), (num_prefix, 0), value=True)
    frame_T1 = torch.arange(len(own_TS), device=own_TS.device)[:, None]
    source_TS = torch.cat((frame_T1.expand(-1, num_prefix), source_TN), dim=1)
    own_row_TS = own_TS.flatten().cumsum(0).view_as(own_TS) - 1
    row_TS = own_row_TS.gather(0, source_TS)
    frame_E, place_E = own_TS.nonzero(as_tuple=True)
    counts = own_TS.sum(dim=1).tolist()
    groups, start = [], 0
    for frames in _grouped(counts, group_rows):
        batches = []
        for first in range(0, len(frames), batch_frames):
            batches.append(_batch(frames[first : first + batch_frames], own_TS, row_TS))
        stop = start + sum(counts[frame] for frame in frames)
        groups.append(Group(frame_E[start:stop], place_E[start:stop], tuple(batches)))
        start = stop
    return Packing(row_TS, tuple(groups), batch_frames)


def _grouped(counts: Sequence[int], group_rows: int) -> Iterator[list[int]]:
    """Consecutive frames that have something to encode, as many at a time as `group_rows` allows."""
    group: list[int] = []
    held = 0
    for frame, count in enumerate(counts):
        if group and held + count > group_rows:
            yield group
            group, held = [], 0
        if count:
            group.append(frame)
            held += count
    yield group


def _batch(frames: Sequence[int], own_TS: Tensor, row_TS: Tensor) -> Batch:
    rows = [row_TS[frame][own_TS[frame]] for frame in frames]
    most = max(len(row_q) for row_q in rows)
    query_BQ = torch.stack([torch.cat((row_q, row_q[-1:].expand(most - len(row_q)))) for row_q in rows])
    kept_BQ = torch.arange(most) < torch.tensor([len(row_q) for row_q in rows])[:, None]
    return Batch(query_BQ, kept_BQ.flatten().nonzero()[:, 0], row_TS[list(frames)])
