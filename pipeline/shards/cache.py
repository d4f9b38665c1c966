"""Reading a run back: `TokenCache`, by position, by clip id, or as a stream split over ranks and workers."""

from __future__ import annotations

import bisect
import random
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch.utils.data import get_worker_info

from pipeline.errors import RunFolderError
from pipeline.plan.units import Clip
from pipeline.shards.commits import read_manifests
from pipeline.shards.rows import Rows, ShardReader, first_of_each, open_reader
from pipeline.shards.run_folder import read_run
from pipeline.shards.scan import ClipFacts, read_facts
from pipeline.store import Where, open_store
from pipeline.store.local_copies import LocalCopies
from pipeline.values import TokenSet

Arrays = Literal["torch", "numpy"]
Array: TypeAlias = Any
"""A torch tensor or a numpy array, as the cache was opened."""
OPEN_FILES = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CachedClip:
    """One clip read back. M tokens of D channels stand for N source patches."""

    clip_id: str
    video_id: str
    uri: str
    clip_index: int
    start_ns: int
    end_ns: int
    frame_time_ns: Array
    """(F,) int64, of the sampled frames: F = T, but of a video model's tubelets, where T = ceil(F / tubelet)."""
    grid_thw: tuple[int, int, int]
    tokens: Array
    """(M, D): float16, float32, or bfloat16 (float32 in numpy, which has no bfloat16); int8 comes back as float32."""
    sizes: Array
    """(M,) int32, sums to N."""
    centers: Array
    """(M, 3) float32: t, y, x in patch units."""
    group: Array
    """(N,) int64: the token of each source patch, in t, y, x order."""
    pooled: Array
    """(D,) float32, unit norm."""
    fidelity: float
    motion_source: str
    damaged_frames: int
    embedding: Array | None = None
    """(E,) float32, unit norm: the mean of the frames' image embeddings, where the encoder has them."""
    frames_per_token_row: int = 1
    """Frames that one step of the grid in time stands for: a video model's tubelet. The last may hold fewer."""

    @property
    def row_time_ns(self) -> Array:
        """(T,) int64: the time of the first frame of each step of the grid."""
        return self.frame_time_ns[:: self.frames_per_token_row]

    def unmerged(self) -> Array:
        """Each source patch's token, (N, D)."""
        return self.tokens[self.group]


class TokenCache:
    """The committed clips of a run, in order of video id and clip index; a map-style dataset.

    Only what is committed is seen; nothing is read but the clips asked for. Every clip is there once, whatever shards
    and formats hold it.
    """

    def __init__(self, path: Where, *, arrays: Arrays = "torch", local: str | Path | None = None) -> None:
        """Open a run.

        Args:
            path: A folder, or the address of a prefix of an object store.
            arrays: What clips are made of.
            local: A folder of this machine in which shards of an object store are kept once they were read from.

        Raises:
            RunFolderError: there is no run, or it mixes fingerprints.
        """
        self._store = open_store(path)
        self.path = path if isinstance(path, Path) else self._store.address
        self.run = read_run(self._store)
        if local is not None:
            self._store = LocalCopies(self._store, Path(local) / self.run["fingerprint"])
        self._arrays = arrays
        manifests = list(read_manifests(self._store).values())
        for manifest in manifests:
            if manifest.fingerprint != self.run["fingerprint"]:
                raise RunFolderError(
                    f"{self.path}: shard {manifest.shard_id} was made with fingerprint {manifest.fingerprint}, "
                    f"the run's is {self.run['fingerprint']}: extract into another folder"
                )
        # Parquet where there is both: it can be read in part.
        self._files = [min((file.name for file in m.files), default="") for m in manifests]
        self._runs = first_of_each(manifests)
        self._ends = list(accumulate(run.count for run in self._runs))
        self._open: OrderedDict[int, ShardReader] = OrderedDict()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:
        return f"TokenCache({str(self.path)!r}, {len(self)} clips in {len({run.shard for run in self._runs})} shards)"

    def __getitem__(self, key: int | str) -> CachedClip:
        """A clip by position, negative from the end, or by clip id.

        Raises:
            IndexError, KeyError: there is none.
        """
        per_row = self.run["encoder"].get("frames_per_token_row", 1)
        return cached_clip(self.token_set(self.position(key)), self._arrays, per_row)

    def position(self, key: int | str) -> int:
        """Where a clip is, by position, negative from the end, or by clip id.

        Raises:
            IndexError, KeyError: there is none.
        """
        if isinstance(key, str):
            position = self._find(key)
            if position is None:
                like = f": {len(self)} clips such as {self._clip_id(0)}" if len(self) else ", which holds none"
                raise KeyError(f"{key} is no clip of {self.path}{like}")
            return position
        if not -len(self) <= key < len(self):
            raise IndexError(f"clip {key} of {len(self)}")
        return key % len(self)

    def token_set(self, position: int) -> TokenSet:
        """A clip by position as it is stored.

        Raises:
            RunFolderError: it cannot be read.
        """
        run, offset = self._at(position)
        try:
            clip = self._reader(run.shard).clip(run.row + offset)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise RunFolderError(
                f"{self.path}: {self._files[run.shard]} cannot be read ({error}): run `vtm verify`"
            ) from error
        if clip.clip_id != self._clip_id(position):
            raise RunFolderError(
                f"{self.path}: {self._files[run.shard]} holds other clips than were committed: run `vtm verify`"
            )
        return clip

    def facts(self) -> Iterator[ClipFacts]:
        """What is known of every clip, in order of position, without reading a token.

        Raises:
            RunFolderError: a shard cannot be read.
        """
        found: dict[int, list[ClipFacts]] = {}
        left = Counter(run.shard for run in self._runs)
        for run in self._runs:
            if run.shard not in found:
                name = self._files[run.shard]
                try:
                    found[run.shard] = list(read_facts(self._store, name))
                except (OSError, ValueError, KeyError) as error:
                    raise RunFolderError(f"{self.path}: {name} cannot be read ({error}): run `vtm verify`") from error
            yield from found[run.shard][run.row : run.row + run.count]
            left[run.shard] -= 1
            if not left[run.shard]:
                del found[run.shard]

    def __contains__(self, key: object) -> bool:
        """Whether there is a clip of this id (or, for what `__getitem__` gives, of its id)."""
        clip_id = key.clip_id if isinstance(key, CachedClip) else key
        return isinstance(clip_id, str) and self._find(clip_id) is not None

    def __iter__(self) -> Iterator[CachedClip]:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        # Open files do not travel to the workers of a data loader.
        return self.__dict__ | {"_open": OrderedDict()}

    @property
    def clip_ids(self) -> list[str]:
        """Ids in order of position."""
        return [self._clip_id(position) for position in range(len(self))]

    def stream(
        self, *, rank: int = 0, num_ranks: int = 1, shuffle_seed: int | None = None, start: int = 0
    ) -> Iterator[CachedClip]:
        """The clips of one rank, split further over the workers of a torch data loader; every clip comes once.

        Args:
            rank: This process among `num_ranks`.
            num_ranks: Processes that read together.
            shuffle_seed: Order of the clips; the same on all ranks. None keeps the order of positions.
            start: Clips of this rank and worker to leave out: where an interrupted pass goes on.

        Raises:
            ValueError: the rank is not below the number of ranks.
        """
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank {rank} must be 0 or more and below num_ranks {num_ranks}")
        order = list(range(len(self)))
        if shuffle_seed is not None:
            random.Random(shuffle_seed).shuffle(order)
        worker = get_worker_info()
        part, parts = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for position in order[rank::num_ranks][part::parts][start:]:
            yield self[position]

    def _at(self, position: int) -> tuple[Rows, int]:
        number = bisect.bisect_right(self._ends, position)
        return self._runs[number], position - (self._ends[number - 1] if number else 0)

    def _clip_id(self, position: int) -> str:
        run, offset = self._at(position)
        return Clip(run.video_id, run.first + offset).clip_id

    def _find(self, clip_id: str) -> int | None:
        video_id, _, text = clip_id.partition("-")
        if not text.isdigit() or Clip(video_id, int(text)).clip_id != clip_id:
            return None
        index = int(text)
        number = bisect.bisect_right(self._runs, (video_id, index), key=lambda run: (run.video_id, run.first)) - 1
        if number < 0:
            return None
        run = self._runs[number]
        if run.video_id != video_id or index >= run.first + run.count:
            return None
        return self._ends[number] - run.count + index - run.first

    def _reader(self, shard: int) -> ShardReader:
        if shard in self._open:
            self._open.move_to_end(shard)
        else:
            if len(self._open) >= OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = open_reader(self._store, self._files[shard])
        return self._open[shard]


def cached_clip(clip: TokenSet, arrays: Arrays, frames_per_token_row: int = 1) -> CachedClip:
    """A token set with its arrays in the form a consumer computes with."""
    converted: dict[str, Any] = {
        "tokens": _tokens(clip, arrays),
        "group": clip.group.astype(np.int64),
        "sizes": clip.sizes,
        "centers": clip.centers,
        "pooled": clip.pooled,
        "embedding": clip.embedding,
        "frame_time_ns": clip.frame_time_ns,
    }
    if arrays == "torch":
        # Copied, because the bytes of a file may not be written to and torch has no read-only tensors.
        converted = {k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for k, v in converted.items()}
    converted["frames_per_token_row"] = frames_per_token_row
    same = {f.name: getattr(clip, f.name) for f in fields(CachedClip) if f.name not in converted}
    return CachedClip(**same, **converted)


def _tokens(clip: TokenSet, arrays: Arrays) -> Array:
    if clip.tokens_scale is not None:
        return clip.tokens.astype(np.float32) * clip.tokens_scale[:, None]
    if clip.tokens_dtype != "bfloat16":
        return clip.tokens
    if arrays == "torch":
        return torch.from_numpy(clip.tokens.copy()).view(torch.bfloat16)
    # bfloat16 is the upper half of float32.
    return (clip.tokens.astype(np.uint32) << 16).view(np.float32)
