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
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from pipeline.cache.cut import Cut, check_cut, coarsened, decoded_tokens
from pipeline.cache.video_tokens import VideoTokens, coarsened_video
from pipeline.errors import RunFolderError
from pipeline.plan.units import Clip
from pipeline.shards.commits import read_manifests
from pipeline.shards.rows import Rows, ShardReader, first_of_each, open_reader
from pipeline.shards.run_folder import read_run
from pipeline.shards.scan import ClipFacts, read_facts, read_vectors
from pipeline.shards.video_table import read_video
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
    parent: Array | None = None
    """(M,) int64: the token into which each merges next, the root's its own; None without a merge tree."""
    loss: Array | None = None
    """(M,) float32: what that merge costs in summed cosine, infinite for the root."""
    weights: Array | None = None
    """(M,) float32: summed weights of each token's patches; None where every patch weighs 1."""
    frames_per_token_row: int = 1
    """Frames that one step of the grid in time stands for: a video model's tubelet. The last may hold fewer."""

    @property
    def row_time_ns(self) -> Array:
        """(T,) int64: the time of the first frame of each step of the grid."""
        return self.frame_time_ns[:: self.frames_per_token_row]

    def unmerged(self) -> Array:
        """Each source patch's token, (N, D)."""
        return self.tokens[self.group]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CachedVideo:
    """A whole video's V tokens of D channels, merged across its clips."""

    video_id: str
    uri: str
    num_sources: int
    """Source patches of all clips."""
    tokens: Array
    """(V, D), as `CachedClip.tokens`, in order of time."""
    sizes: Array
    """(V,) int64, sums to num_sources."""
    centers: Array
    """(V, 3) float32: t, y, x in patch units, t counted on over the video's clips."""
    time_ns: Array
    """(V,) int64: mean time in the video."""
    parent: Array
    """(V,) int64: the token into which each merges next."""
    loss: Array
    """(V,) float32: what that costs."""
    fidelity: float
    """Mean cosine between source tokens and these, as told."""
    clip_maps: dict[str, Array]
    """By clip id: (M,) int64, the video's token of each token stored for the clip, whatever the cache's own cut is."""


class TokenCache:
    """The committed clips of a run, in order of video id and clip index; a map-style dataset.

    Only what is committed is seen; nothing is read but the clips asked for. Every clip is there once, whatever shards
    and formats hold it. A run of `--strategy tree` gives any smaller number of tokens than it stores; sizes, centres,
    map, tree and fidelity are then those of the tokens given.
    """

    def __init__(
        self,
        path: Where,
        *,
        arrays: Arrays = "torch",
        local: str | Path | None = None,
        keep: float | None = None,
        tokens: int | None = None,
        fidelity: float | None = None,
        max_loss: float | None = None,
    ) -> None:
        """Open a run.

        Args:
            path: A folder, or the address of a prefix of an object store.
            arrays: What clips are made of.
            local: A folder of this machine in which shards of an object store are kept once they were read from.
            keep: Share of the source patches that a clip's tokens are to be, instead of all that are stored.
            tokens: So many of them instead.
            fidelity: As few as have this mean cosine; a clip whose stored tokens have less comes whole.
            max_loss: One loss for all clips, as `vtm budget` finds it for a share of a whole run.

        Raises:
            RunFolderError: there is no run, it mixes fingerprints, or holds no trees to cut.
            SettingsError: a cut is out of range, finer than what is stored, or there are two of them.
        """
        self._store = open_store(path)
        self.path = path if isinstance(path, Path) else self._store.address
        self.run = read_run(self._store)
        asked = any(value is not None for value in (keep, tokens, fidelity, max_loss))
        self.cut = Cut(keep=keep, tokens=tokens, fidelity=fidelity, max_loss=max_loss) if asked else None
        if self.cut is not None:
            check_cut(self.path, self.run, self.cut)
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
        clip = self.token_set(self.position(key))
        return cached_clip(clip if self.cut is None else coarsened(clip, self.cut), self._arrays, per_row)

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
        """A clip by position as it is stored, whatever the cut.

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

    def vectors(self, column: Literal["pooled", "embedding"]) -> NDArray[np.float32] | None:
        """A column of vectors of all clips, (clips, channels), in order of position, without reading a token.

        Returns:
            None where a clip has none: `embedding` is filled as the run was told to.

        Raises:
            RunFolderError: a shard cannot be read.
        """
        found: dict[int, NDArray[np.float32] | None] = {}
        for shard in {run.shard for run in self._runs}:
            name = self._files[shard]
            try:
                found[shard] = read_vectors(self._store, name, column)
            except (OSError, ValueError, KeyError) as error:
                raise RunFolderError(f"{self.path}: {name} cannot be read ({error}): run `vtm verify`") from error
        parts = [(found[run.shard], run) for run in self._runs]
        there = [values[run.row : run.row + run.count] for values, run in parts if values is not None]
        if not parts or len(there) < len(parts):
            return None
        vectors = np.concatenate(there)
        if len(vectors) != len(self):
            raise RunFolderError(f"{self.path}: shards hold fewer clips than were committed: run `vtm verify`")
        return vectors

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

    @property
    def video_positions(self) -> dict[str, list[int]]:
        """Positions of each video's clips in order of time, by video id."""
        found: dict[str, list[int]] = {}
        for run, end in zip(self._runs, self._ends, strict=True):
            found.setdefault(run.video_id, []).extend(range(end - run.count, end))
        return found

    def video(
        self,
        video_id: str,
        *,
        keep: float | None = None,
        tokens: int | None = None,
        fidelity: float | None = None,
        max_loss: float | None = None,
    ) -> CachedVideo:
        """The tokens of a whole video, which `vtm merge` made; fewer of them where a cut is given.

        Raises:
            RunFolderError: there are none.
            SettingsError: the cut is out of range.
        """
        video = read_video(self.path, video_id)
        if any(value is not None for value in (keep, tokens, fidelity, max_loss)):
            video = coarsened_video(video, Cut(keep=keep, tokens=tokens, fidelity=fidelity, max_loss=max_loss))
        return cached_video(video, self._arrays)

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
        "tokens": _tokens(clip.tokens, clip.tokens_dtype, clip.tokens_scale, arrays),
        "group": clip.group.astype(np.int64),
        "parent": None if clip.parent is None else clip.parent.astype(np.int64),
        "loss": clip.loss,
        "weights": clip.weights,
        "sizes": clip.sizes,
        "centers": clip.centers,
        "pooled": clip.pooled,
        "embedding": clip.embedding,
        "frame_time_ns": clip.frame_time_ns,
    }
    converted = _converted(converted, arrays)
    converted["frames_per_token_row"] = frames_per_token_row
    same = {f.name: getattr(clip, f.name) for f in fields(CachedClip) if f.name not in converted}
    return CachedClip(**same, **converted)


def cached_video(video: VideoTokens, arrays: Arrays) -> CachedVideo:
    """A video's tokens with their arrays in the form a consumer computes with."""
    converted = {
        "tokens": _tokens(video.tokens, video.tokens_dtype, video.tokens_scale, arrays),
        "sizes": video.sizes,
        "centers": video.centers,
        "time_ns": video.time_ns,
        "parent": video.parent.astype(np.int64),
        "loss": video.loss,
    }
    ends = np.cumsum(video.clip_tokens)[:-1]
    maps = dict(zip(video.clip_ids, np.split(video.map.astype(np.int64), ends), strict=True))
    same = {name: getattr(video, name) for name in ("video_id", "uri", "num_sources", "fidelity")}
    return CachedVideo(**same, **_converted(converted, arrays), clip_maps=_converted(maps, arrays))


def _converted(values: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    if arrays == "numpy":
        return values
    # Copied, because the bytes of a file may not be written to and torch has no read-only tensors.
    return {k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for k, v in values.items()}


def _tokens(tokens_MD: NDArray[np.generic], dtype: str, scale_M: NDArray[np.float32] | None, arrays: Arrays) -> Array:
    if dtype == "bfloat16" and arrays == "torch":
        return torch.from_numpy(tokens_MD.copy()).view(torch.bfloat16)
    return decoded_tokens(tokens_MD, dtype, scale_M) if dtype in ("bfloat16", "int8") else tokens_MD
