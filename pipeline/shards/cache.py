"""Reading a run folder back: `TokenCache`, by position, by clip id, or as a stream split over ranks and workers."""

from __future__ import annotations

import bisect
import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from pipeline.cut import Cut, check_cut, coarsened, decoded_tokens
from pipeline.errors import RunFolderError
from pipeline.shards.columns import clip_of
from pipeline.shards.manifest import read_manifests
from pipeline.shards.run_folder import read_run
from pipeline.shards.video_table import read_video
from pipeline.values import TokenSet
from pipeline.video_tokens import VideoTokens, coarsened_video

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
    """The committed clips of a run folder, in order of shard and row; a map-style dataset.

    Only what is committed is seen; nothing is read but the clips asked for. A run of `--strategy tree` gives any
    smaller number of tokens than it stores; sizes, centres, map, tree and fidelity are then those of the tokens given.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        arrays: Arrays = "torch",
        keep: float | None = None,
        tokens: int | None = None,
        fidelity: float | None = None,
        max_loss: float | None = None,
    ) -> None:
        """Open a run folder.

        Args:
            path: The folder.
            arrays: What clips are made of.
            keep: Share of the source patches that a clip's tokens are to be, instead of all that are stored.
            tokens: So many of them instead.
            fidelity: As few as have this mean cosine; a clip whose stored tokens have less comes whole.
            max_loss: One loss for all clips, as `vtm budget` finds it for a share of a whole run.

        Raises:
            RunFolderError: it is none, holds no Parquet shard, mixes fingerprints, or holds no trees to cut.
            SettingsError: a cut is out of range, finer than what is stored, or there are two of them.
        """
        self.path = Path(path)
        self.run = read_run(self.path)
        asked = any(value is not None for value in (keep, tokens, fidelity, max_loss))
        self.cut = Cut(keep=keep, tokens=tokens, fidelity=fidelity, max_loss=max_loss) if asked else None
        if self.cut is not None:
            check_cut(self.path, self.run, self.cut)
        self._arrays = arrays
        self._files: list[Path] = []
        rows: list[int] = []
        for manifest in read_manifests(self.path).values():
            if manifest.fingerprint != self.run["fingerprint"]:
                raise RunFolderError(
                    f"{self.path}: shard {manifest.shard_id} was made with fingerprint {manifest.fingerprint}, "
                    f"the run's is {self.run['fingerprint']}: extract into another folder"
                )
            names = [file.name for file in manifest.files if file.name.endswith(".parquet")]
            if manifest.num_clips and not names:
                raise RunFolderError(f"{self.path} holds no Parquet shards: read its .tar shards with webdataset")
            if names:
                self._files.append(self.path / "shards" / names[0])
                rows.append(manifest.num_clips)
        self._ends = list(accumulate(rows))
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._positions: dict[str, int] | None = None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:
        return f"TokenCache({str(self.path)!r}, {len(self)} clips in {len(self._files)} shards)"

    def __getitem__(self, key: int | str) -> CachedClip:
        """A clip by position, negative from the end, or by clip id.

        Raises:
            IndexError, KeyError: there is none.
        """
        if isinstance(key, str):
            positions = self._index()
            if key not in positions:
                raise KeyError(
                    f"{key} is no clip of {self.path}: {len(self)} clips such as {next(iter(positions), '')}"
                )
            key = positions[key]
        if not -len(self) <= key < len(self):
            raise IndexError(f"clip {key} of {len(self)}")
        position = key % len(self)
        shard = bisect.bisect_right(self._ends, position)
        return self._read(shard, position - (self._ends[shard - 1] if shard else 0))

    def __iter__(self) -> Iterator[CachedClip]:
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        # Open files do not travel to the workers of a data loader.
        return self.__dict__ | {"_open": OrderedDict()}

    @property
    def clip_ids(self) -> list[str]:
        """Ids in order of position."""
        return list(self._index())

    @property
    def video_positions(self) -> dict[str, list[int]]:
        """Positions of each video's clips in order of time, by video id."""
        found: dict[str, list[tuple[int, int]]] = {}
        position = 0
        for shard in range(len(self._files)):
            columns = self._file(shard).read(columns=["video_id", "clip_index"]).to_pydict()
            for video_id, index in zip(columns["video_id"], columns["clip_index"], strict=True):
                found.setdefault(video_id, []).append((index, position))
                position += 1
        return {video_id: [at for _, at in sorted(clips)] for video_id, clips in found.items()}

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

    def _index(self) -> dict[str, int]:
        if self._positions is None:
            ids: list[str] = []
            for shard in range(len(self._files)):
                ids += self._file(shard).read(columns=["clip_id"]).column(0).to_pylist()
            self._positions = {clip_id: i for i, clip_id in enumerate(ids)}
        return self._positions

    def _file(self, shard: int) -> pq.ParquetFile:
        if shard in self._open:
            self._open.move_to_end(shard)
        else:
            if len(self._open) >= OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = pq.ParquetFile(self._files[shard], memory_map=True)
        return self._open[shard]

    def token_set(self, position: int) -> TokenSet:
        """A clip by position as it is stored, whatever the cut."""
        shard = bisect.bisect_right(self._ends, position)
        return self._stored(shard, position - (self._ends[shard - 1] if shard else 0))

    def _read(self, shard: int, row: int) -> CachedClip:
        clip = self._stored(shard, row)
        per_row = self.run["encoder"].get("frames_per_token_row", 1)
        return cached_clip(clip if self.cut is None else coarsened(clip, self.cut), self._arrays, per_row)

    def _stored(self, shard: int, row: int) -> TokenSet:
        file = self._file(shard)
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                table = file.read_row_group(group)
                return clip_of(table.slice(row, 1).to_pylist()[0])
            row -= rows
        raise RunFolderError(f"{self._files[shard]} holds fewer rows than its manifest says: run `vtm verify`")


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
