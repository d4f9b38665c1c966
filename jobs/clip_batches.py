"""Token caches as batches of clips for training and evaluation.

A merged clip is spread back to its source patches, so lightly merged caches train as unmerged ones do.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from jobs.labels import Label, LabelSet, Split, video_names
from pipeline import TokenCache
from pipeline.encode import clip_seed
from pipeline.errors import InputError
from vtm import token_motion
from vtm.plan import Grid
from vtm.training import ClipBatch


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """Where a clip is, and what is known of it."""

    cache: int
    """Position in the list of caches."""
    clip_id: str
    video_id: str
    grid: Grid
    target: float | None


class ClipSource:
    """The clips of some caches, with the labels of one split, batched by grid.

    With `motion`, batches carry what the strategy of that name reads: caches hold no codec's motion, so that of the
    tokens stands in for it.
    """

    def __init__(
        self, caches: Sequence[TokenCache], entries: Sequence[ClipEntry], *, classes: bool, motion: bool = False
    ) -> None:
        self._caches = caches
        self._classes = classes
        self._motion = motion
        self.entries = tuple(entries)

    @property
    def videos(self) -> int:
        """Videos that the clips come from."""
        return len({entry.video_id for entry in self.entries})

    def count(self, size: int) -> int:
        """Batches of up to `size` clips that make an epoch."""
        return sum(-(-len(members) // size) for members in self._by_grid().values())

    def in_order(self, size: int) -> Iterator[ClipBatch]:
        """All clips, each with its own seed."""
        for members in self._by_grid().values():
            for start in range(0, len(members), size):
                yield self._read(members[start : start + size], epoch=0)

    def shuffled(self, size: int, seed: int, epoch: int) -> Iterator[ClipBatch]:
        """All clips in an order and with seeds that depend on the epoch."""
        chance = random.Random(f"{seed} {epoch}")
        pieces = []
        for members in self._by_grid().values():
            chance.shuffle(members)
            pieces += [members[start : start + size] for start in range(0, len(members), size)]
        chance.shuffle(pieces)
        for piece in pieces:
            yield self._read(piece, epoch=epoch + 1)

    def _by_grid(self) -> dict[Grid, list[ClipEntry]]:
        groups = defaultdict(list)
        for entry in self.entries:
            groups[entry.grid].append(entry)
        return dict(sorted(groups.items()))

    def _read(self, entries: Sequence[ClipEntry], epoch: int) -> ClipBatch:
        clips = [self._caches[entry.cache][entry.clip_id] for entry in entries]
        targets = [entry.target for entry in entries if entry.target is not None]
        # An epoch's own seeds in training: a partition drawn once would be learnt by heart.
        seeds = tuple(clip_seed(f"{entry.clip_id} {epoch}" if epoch else entry.clip_id) for entry in entries)
        patches_BNC = torch.stack([clip.unmerged().float() for clip in clips])
        return ClipBatch(
            patches=patches_BNC,
            grid=entries[0].grid,
            seeds=seeds,
            target=torch.tensor(targets, dtype=torch.int64 if self._classes else torch.float32) if targets else None,
            videos=tuple(entry.video_id for entry in entries),
            motion=token_motion(patches_BNC, entries[0].grid) if self._motion else None,
        )


def open_caches(folders: Sequence[Path]) -> list[TokenCache]:
    """Open run folders that one encoder made.

    Raises:
        InputError: they hold no clip.
    """
    caches = [TokenCache(folder) for folder in folders]
    if not any(len(cache) for cache in caches):
        raise InputError(
            f"{', '.join(map(str, folders))}: no clips; `vtm extract --strategy none` makes caches to train on"
        )
    return caches


def labelled_clips(caches: Sequence[TokenCache], labels: LabelSet, split: Split, *, motion: bool = False) -> ClipSource:
    """The clips whose video has a label of a split; one clip a label where a video has several.

    Args:
        caches: of one encoder.
        labels: of videos, by any of their names.
        split: whose labels.
        motion: whether batches carry the motion of each patch.
    """
    by_name: Mapping[str, list[Label]] = defaultdict(list)
    for label in labels.labels:
        if label.split == split:
            by_name[label.video].append(label)
    entries = []
    for index, clip_id, video_id, uri, grid in _clips(caches):
        names = dict.fromkeys(video_names(video_id, uri))
        found = next((by_name[name] for name in names if name in by_name), [])
        entries += [ClipEntry(index, clip_id, video_id, grid, label.target) for label in found]
    return ClipSource(caches, entries, classes=labels.task == "classification", motion=motion)


def unlabelled_clips(caches: Sequence[TokenCache], *, held_out: bool) -> ClipSource:
    """All clips but the last fifth of each video, or those alone; a video of one clip is learnt from."""
    of_video: dict[tuple[int, str], list[ClipEntry]] = defaultdict(list)
    for index, clip_id, video_id, _, grid in _clips(caches):
        of_video[index, video_id].append(ClipEntry(index, clip_id, video_id, grid, None))
    entries = []
    for members in of_video.values():
        members.sort(key=lambda entry: entry.clip_id)
        learnt = len(members) - (-(-len(members) // 5) if len(members) > 1 else 0)
        entries += members[learnt:] if held_out else members[:learnt]
    return ClipSource(caches, entries, classes=False)


def _clips(caches: Sequence[TokenCache]) -> Iterator[tuple[int, str, str, str, Grid]]:
    for index, cache in enumerate(caches):
        for clip in cache.facts():
            yield index, clip.clip_id, clip.video_id, clip.uri, clip.grid_thw
