"""Token caches as batches of clips for training, evaluation and prediction.

A merged clip is spread back to its source patches, so lightly merged caches train as unmerged ones do.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import torch

from jobs.training.labels import CachedVideo, Label, Split
from pipeline import TokenCache
from pipeline.encode.clip_encoder import clip_seed
from pipeline.errors import InputError, SettingsError
from vtm import NetworkError
from vtm.network import Origin
from vtm.plan import Grid
from vtm.training import ALONE, ClipBatch, Ranks


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """Where a clip is, and what is known of it."""

    cache: int
    """Position in the list of caches."""
    clip_id: str
    video_id: str
    uri: str
    grid: Grid


@dataclass(frozen=True, slots=True)
class Caches:
    """Run folders that one encoder made, and the clips in them."""

    opened: tuple[TokenCache, ...]
    clips: tuple[ClipEntry, ...]
    """A clip that several folders hold is taken from the first."""
    origin: Origin
    """What made the tokens; no labels."""
    width: int
    """Channels of a token."""

    def videos(self) -> list[CachedVideo]:
        """Every video, in order of its first clip."""
        return list(dict.fromkeys(CachedVideo(clip.video_id, clip.uri) for clip in self.clips))


class ClipSource:
    """The clips of some videos, with their labels where they are known, batched by grid.

    With `motion`, batches carry what the strategy of that name reads: caches hold no codec's motion, so that of the
    tokens takes its place.
    """

    def __init__(
        self, caches: Caches, targets: Mapping[str, float | None], *, classes: bool = False, motion: bool = False
    ) -> None:
        """Choose clips.

        Args:
            caches: that hold them.
            targets: of each video that is wanted, by id; None without a label.
            classes: whether targets are class numbers.
            motion: whether batches carry the motion of each patch.
        """
        self._opened = caches.opened
        self._targets = targets
        self._classes = classes
        self._motion = motion
        self.entries = tuple(entry for entry in caches.clips if entry.video_id in targets)

    @property
    def videos(self) -> int:
        """Videos that the clips come from."""
        return len({entry.video_id for entry in self.entries})

    def sha256(self) -> str:
        """Hash of which clips these are."""
        return hashlib.sha256("\n".join(sorted(entry.clip_id for entry in self.entries)).encode()).hexdigest()

    def count(self, size: int) -> int:
        """Batches of up to `size` clips that make an epoch."""
        _check_size(size)
        return sum(-(-len(members) // size) for members in self._by_grid().values())

    def in_order(self, size: int, ranks: Ranks = ALONE) -> Iterator[ClipBatch]:
        """All clips, each with its own seed; of several processes, each reads its part of the batches."""
        _check_size(size)
        pieces = [piece for members in self._by_grid().values() for piece in _pieces(members, size)]
        for piece in ranks.part(pieces):
            yield self._read(piece, epoch=0)

    def shuffled(self, size: int, seed: int, epoch: int, ranks: Ranks = ALONE) -> Iterator[ClipBatch]:
        """All clips in an order and with seeds that depend on the epoch.

        Of several processes, each reads its part of every batch; of one that is too small for all, the first clip,
        which does not count.
        """
        _check_size(size)
        chance = random.Random(f"{seed} {epoch}")
        pieces = []
        for members in self._by_grid().values():
            chance.shuffle(members)
            pieces += _pieces(members, size)
        chance.shuffle(pieces)
        for piece in pieces:
            mine = ranks.part(piece)
            yield replace(self._read(mine or piece[:1], epoch=epoch + 1), counts=bool(mine))

    def _by_grid(self) -> dict[Grid, list[ClipEntry]]:
        groups = defaultdict(list)
        for entry in self.entries:
            groups[entry.grid].append(entry)
        return dict(sorted(groups.items()))

    def _read(self, entries: Sequence[ClipEntry], epoch: int) -> ClipBatch:
        clips = [self._opened[entry.cache][entry.clip_id] for entry in entries]
        found = [self._targets[entry.video_id] for entry in entries]
        targets = [target for target in found if target is not None]
        # An epoch's own seeds in training: a partition drawn once would be learnt by heart.
        seeds = tuple(clip_seed(f"{entry.clip_id} {epoch}" if epoch else entry.clip_id) for entry in entries)
        firsts = accumulate((len(clip.tokens) for clip in clips), initial=0)
        return ClipBatch(
            patches=torch.cat([clip.tokens for clip in clips]),
            rows=torch.stack([clip.group.long() + first for clip, first in zip(clips, firsts, strict=False)]),
            grid=entries[0].grid,
            seeds=seeds,
            target=torch.tensor(targets, dtype=torch.int64 if self._classes else torch.float32) if targets else None,
            videos=tuple(entry.video_id for entry in entries),
            wants_motion=self._motion,
        )


def open_caches(folders: Sequence[Path]) -> Caches:
    """Open run folders that one encoder made.

    Raises:
        InputError: they hold no clip.
        SettingsError: their tokens are of several encoders, output blocks or rates.
    """
    opened = tuple(TokenCache(folder) for folder in folders)
    clips: dict[str, ClipEntry] = {}
    width = 0
    for index, cache in enumerate(opened):
        for clip in cache:
            width = int(clip.tokens.shape[1])
            entry = ClipEntry(index, clip.clip_id, clip.video_id, clip.uri, clip.grid_thw)
            clips.setdefault(clip.clip_id, entry)
    if not clips:
        raise InputError(
            f"{', '.join(map(str, folders))}: no clips; `vtm extract --strategy none` makes caches to train on"
        )
    origin = _origin(opened[0])
    for folder, cache in zip(folders, opened, strict=True):
        try:
            _origin(cache).check_tokens(origin, folder)
        except NetworkError as error:
            raise SettingsError(f"caches of different tokens cannot be used together: {error}") from error
    return Caches(opened, tuple(clips.values()), origin, width)


def labelled_clips(
    caches: Caches, by_video: Mapping[str, Label], split: Split, *, classes: bool, motion: bool = False
) -> ClipSource:
    """The clips of the videos of a split.

    Args:
        caches: of one encoder.
        by_video: labels by video id.
        split: whose videos.
        classes: whether labels are class numbers.
        motion: whether batches carry the motion of each patch.
    """
    targets = {video: label.target for video, label in by_video.items() if label.split == split}
    return ClipSource(caches, targets, classes=classes, motion=motion)


def _pieces(members: Sequence[ClipEntry], size: int) -> list[Sequence[ClipEntry]]:
    return [members[start : start + size] for start in range(0, len(members), size)]


def _check_size(size: int) -> None:
    if size < 1:
        raise SettingsError(f"--batch-clips {size} must be 1 or more: it is a number of clips")


def _origin(cache: TokenCache) -> Origin:
    encoder, settings = cache.run["encoder"], cache.run["settings"]
    return Origin(
        encoder=str(encoder.get("name", "")),
        weights_sha256=str(encoder.get("weights_sha256", "")),
        layer=int(settings.get("layer", -1)),
        fps=str(settings.get("fps", "1")),
    )
