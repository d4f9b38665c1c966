"""Reading a run back: `TokenCache`, by position, by clip id, or by video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.cached_clip import Arrays, CachedClip, CachedVideo, cached_clip, cached_video
from pipeline.cache.clip_fields import FIELDS, check_fields
from pipeline.cache.clip_places import ClipPlaces
from pipeline.cache.clip_view import ClipView, clip_id_of
from pipeline.cache.cut import check_cut, coarsened, cut_asked_for
from pipeline.cache.open_shards import OpenShards
from pipeline.cache.read_rows import RowAddress, read_rows
from pipeline.cache.shard_rows import Wanted
from pipeline.cache.video_tokens import coarsened_video
from pipeline.counted import counted
from pipeline.errors import RunFolderError
from pipeline.shards.commits import read_manifests
from pipeline.shards.rows import first_of_each
from pipeline.shards.run_folder import read_run
from pipeline.shards.scan import ClipFacts, read_facts, read_vectors
from pipeline.shards.video_table import read_video
from pipeline.store import Where, open_store
from pipeline.store.local_copies import LocalCopies
from pipeline.values import TokenSet

if TYPE_CHECKING:
    from pipeline.cache.token_stream import TokenStream


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
        lloyd_steps: int = 0,
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
            lloyd_steps: How often a clip's stored tokens then join the nearest of the tokens left, 2 for most of what
                can be gained: more fidelity, most of all at 2 % and below, for some milliseconds a clip, and no tree.

        Raises:
            RunFolderError: there is no run, it mixes fingerprints, or holds no trees to cut.
            SettingsError: a cut is out of range, finer than what is stored, or there are two of them.
        """
        self._store = open_store(path)
        self.path = path if isinstance(path, Path) else self._store.address
        self.run = read_run(self._store)
        self.cut = cut_asked_for(
            keep=keep, tokens=tokens, fidelity=fidelity, max_loss=max_loss, lloyd_steps=lloyd_steps
        )
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
        self._places = ClipPlaces(first_of_each(manifests))
        self._open = OpenShards(self._store)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        shards = counted(len({run.shard for run in self._places.runs}), "shard")
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
            position = self._places.find(key)
            if position is None:
                example = f", such as {self._places[0].clip_id}" if len(self) else ""
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
        (address,) = self.addresses([position])
        try:
            clip = self._open.reader(address.file).clip(address.row)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise self._unreadable(address.file, error) from error
        if clip.clip_id != address.clip_id:
            raise RunFolderError(f"{self.path}: {address.file} holds other clips than were committed: run `vtm verify`")
        return clip

    def facts(self) -> Iterator[ClipFacts]:
        """What is known of every clip, in order of position, without reading a token.

        Raises:
            RunFolderError: a shard cannot be read.
        """
        found: dict[int, list[ClipFacts]] = {}
        left = Counter(run.shard for run in self._places.runs)
        for run in self._places.runs:
            if run.shard not in found:
                name = self._files[run.shard]
                try:
                    found[run.shard] = list(read_facts(self._store, name))
                except (OSError, ValueError, KeyError) as error:
                    raise self._unreadable(name, error) from error
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
        for shard in {run.shard for run in self._places.runs}:
            name = self._files[shard]
            try:
                found[shard] = read_vectors(self._store, name, column)
            except (OSError, ValueError, KeyError) as error:
                raise self._unreadable(name, error) from error
        parts = [(found[run.shard], run) for run in self._places.runs]
        there = [values[run.row : run.row + run.count] for values, run in parts if values is not None]
        if not parts or len(there) < len(parts):
            return None
        vectors = np.concatenate(there)
        if len(vectors) != len(self):
            raise RunFolderError(f"{self.path}: shards hold fewer clips than were committed: run `vtm verify`")
        return vectors

    def __contains__(self, key: object) -> bool:
        """Whether there is a clip of this id (or, for what `__getitem__` gives, of its id)."""
        return (clip_id := clip_id_of(key)) is not None and self._places.find(clip_id) is not None

    def __iter__(self) -> Iterator[CachedClip]:
        return self.read(range(len(self)))

    def close(self) -> None:
        """Close the shards that reading single clips has opened; reading opens them again."""
        self._open.close()

    @property
    def clip_ids(self) -> list[str]:
        """Ids in order of position."""
        return [self._places[position].clip_id for position in range(len(self))]

    @property
    def video_positions(self) -> dict[str, list[int]]:
        """Positions of each video's clips in order of time, by video id."""
        return {video_id: list(span) for video_id, span in self._places.of_videos().items()}

    @property
    def videos(self) -> dict[str, ClipView]:
        """The clips of each video in order of time, by video id; nothing is read before a clip is asked for."""
        return {video_id: ClipView(self, span) for video_id, span in self._places.of_videos().items()}

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
        cut = cut_asked_for(keep=keep, tokens=tokens, fidelity=fidelity, max_loss=max_loss)
        return cached_video(video if cut is None else coarsened_video(video, cut), self._arrays)

    def stream(self, **options: Any) -> TokenStream:
        """The clips as a stream for training, with all their arrays unless `columns` says otherwise: `TokenStream`."""
        from pipeline.cache.token_stream import TokenStream

        return TokenStream(self, **{"columns": FIELDS} | options)

    def addresses(self, positions: Iterable[int]) -> list[RowAddress]:
        """Where clips lie."""
        places = (self._places[position] for position in positions)
        return [RowAddress(self._files[place.shard], place.row, place.clip_id) for place in places]

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
        return self._places.shards()

    @property
    def tubelet_frames(self) -> int:
        """Frames of each step of the grid: a video model's tubelet."""
        return int(self.run["encoder"].get("tubelet_frames", 1))

    def _unreadable(self, file: str, error: Exception) -> RunFolderError:
        return RunFolderError(f"{self.path}: {file} cannot be read ({error}): run `vtm verify`")
