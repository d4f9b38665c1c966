"""Reading a run back: `TokenCache`, by position, by clip id, or by video."""

from __future__ import annotations

import bisect
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.cached_clip import Arrays, CachedClip, CachedVideo, cached_clip, cached_video
from pipeline.cache.clip_fields import FIELDS, check_fields
from pipeline.cache.cut import Cut, check_cut, coarsened
from pipeline.cache.read_rows import RowAddress, read_rows
from pipeline.cache.shard_rows import Wanted
from pipeline.cache.video_tokens import coarsened_video
from pipeline.counted import counted
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

if TYPE_CHECKING:
    from pipeline.cache.token_stream import TokenStream

OPEN_FILES = 16


class ClipView(Sequence[CachedClip]):
    """Some clips of a cache in order, such as those of a video; they are read when they are asked for."""

    def __init__(self, cache: TokenCache, positions: range) -> None:
        self._cache, self.positions = cache, positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, key: int) -> CachedClip: ...
    @overload
    def __getitem__(self, key: slice) -> ClipView: ...
    def __getitem__(self, key: int | slice) -> CachedClip | ClipView:
        """A clip by its place in the view, or a smaller view."""
        if isinstance(key, slice):
            return ClipView(self._cache, self.positions[key])
        return self._cache[self.positions[key]]

    def __iter__(self) -> Iterator[CachedClip]:
        return self._cache.read(self.positions)

    def __contains__(self, key: object) -> bool:
        """Whether there is a clip of this id (or, for what `__getitem__` gives, of its id)."""
        return key in self._cache and self._cache.position(_clip_id_of(key)) in self.positions

    def __repr__(self) -> str:
        return f"ClipView({counted(len(self), 'clip')} of {str(self._cache.path)!r})"


def _clip_id_of(key: object) -> str:
    return key.clip_id if isinstance(key, CachedClip) else str(key)


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
        shards = counted(len({run.shard for run in self._runs}), "shard")
        return f"TokenCache({str(self.path)!r}, {counted(len(self), 'clip')} in {shards})"

    @overload
    def __getitem__(self, key: int | str) -> CachedClip: ...
    @overload
    def __getitem__(self, key: slice) -> ClipView: ...
    def __getitem__(self, key: int | str | slice) -> CachedClip | ClipView:
        """A clip by position, negative from the end, or by clip id; a slice is a view that reads when it is asked.

        Raises:
            IndexError, KeyError: there is none.
        """
        if isinstance(key, slice):
            return ClipView(self, range(len(self))[key])
        clip = self.token_set(self.position(key))
        clip = clip if self.cut is None else coarsened(clip, self.cut)
        return cached_clip(clip, self._arrays, self.tubelet_frames)

    def position(self, key: int | str) -> int:
        """Where a clip is, by position, negative from the end, or by clip id.

        Raises:
            IndexError, KeyError: there is none.
        """
        if isinstance(key, str):
            position = self._find(key)
            if position is None:
                example = f", such as {self._clip_id(0)}" if len(self) else ""
                raise KeyError(f"{key} is no clip of {self.path}, which holds {counted(len(self), 'clip')}{example}")
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
        return isinstance(key, str | CachedClip) and self._find(_clip_id_of(key)) is not None

    def __iter__(self) -> Iterator[CachedClip]:
        return self.read(range(len(self)))

    def close(self) -> None:
        """Close the shards that reading single clips has opened; reading opens them again."""
        while self._open:
            self._open.popitem()[1].close()

    def __del__(self) -> None:
        # One whose __init__ failed has none.
        if "_open" in self.__dict__:
            self.close()

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
        return {video_id: list(view.positions) for video_id, view in self.videos.items()}

    @property
    def videos(self) -> dict[str, ClipView]:
        """The clips of each video in order of time, by video id; nothing is read before a clip is asked for."""
        spans: dict[str, range] = {}
        for run, end in zip(self._runs, self._ends, strict=True):
            first = spans[run.video_id].start if run.video_id in spans else end - run.count
            spans[run.video_id] = range(first, end)
        return {video_id: ClipView(self, span) for video_id, span in spans.items()}

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

    def stream(self, **options: Any) -> TokenStream:
        """The clips as a stream for training, with all their arrays unless `columns` says otherwise: `TokenStream`."""
        from pipeline.cache.clip_fields import FIELDS
        from pipeline.cache.token_stream import TokenStream

        return TokenStream(self, **{"columns": FIELDS} | options)

    def addresses(self, positions: Iterable[int]) -> list[RowAddress]:
        """Where clips lie."""
        found = []
        for position in positions:
            run, offset = self._at(position)
            clip_id = Clip(run.video_id, run.first + offset).clip_id
            found.append(RowAddress(self._files[run.shard], run.row + offset, clip_id))
        return found

    def read(self, positions: Sequence[int], columns: Iterable[str] | None = None) -> Iterator[CachedClip]:
        """Clips by position, one after the other, and of them only some arrays.

        Args:
            positions: In the order in which they come.
            columns: Names of arrays of a `CachedClip`; all without it. The others are None.

        Raises:
            RunFolderError: a shard cannot be read.
            SettingsError: there is no such array.
        """
        fields = FIELDS if columns is None else check_fields(columns)
        wanted = Wanted(fields, self._arrays, self.cut, self.tubelet_frames)
        return read_rows(self._store, self.addresses(positions), wanted)

    @property
    def shard_numbers(self) -> NDArray[np.int64]:
        """(len(self),) the shard in which each clip lies, in order of position."""
        counts = [run.count for run in self._runs]
        return np.repeat(np.array([run.shard for run in self._runs], dtype=np.int64), counts)

    @property
    def tubelet_frames(self) -> int:
        """Frames of each step of the grid: a video model's tubelet."""
        return int(self.run["encoder"].get("tubelet_frames", 1))

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
