"""All rows of the plan of a run together: its videos, the shards of their clips, and where they were found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.plan.blocks import Blocks
from pipeline.plan.names import HashIndex, Names, hashes_of
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.table import FOLDER, VIDEOS, videos_of
from pipeline.plan.units import Clip, Unit
from pipeline.shards.tables import read_tables
from pipeline.store import Store

ADDRESS = ("uri", "stamp")


class Videos(Mapping[str, PlannedVideo]):
    """The videos of a plan by id, in the order in which they were planned.

    A later row of a video replaces what an earlier one says of it, unless it is a copy.
    """

    def __init__(self, rows: Blocks) -> None:
        self._rows = rows
        self.names = Names(rows.column("video_id"))
        self.row = _chosen(self.names, rows)
        """(names,) the row that describes each video; -1: another has taken its place."""
        self._is_live = self.row >= 0

    def __len__(self) -> int:
        return int(self._is_live.sum())

    def __iter__(self) -> Iterator[str]:
        return (name for name, is_live in zip(self.names, self._is_live.tolist(), strict=True) if is_live)

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self.number(video_id) is not None

    def __getitem__(self, video_id: str) -> PlannedVideo:
        number = self.number(video_id)
        if number is None:
            raise KeyError(video_id)
        return next(self._read(self.row[[number]]))

    def values(self) -> ValuesView[PlannedVideo]:
        """All videos, read in batches."""
        return _Values(self)

    def items(self) -> ItemsView[str, PlannedVideo]:
        """All videos with their ids, read in batches."""
        return _Items(self)

    def number(self, video_id: str) -> int | None:
        """The number of a video; None: it is not planned."""
        number = self.names.number(video_id)
        return None if number is None or self.row[number] < 0 else number

    def number_in(self, row: int) -> int:
        """The number of the video that a row speaks of; -1: another has taken its place."""
        number = int(self.names.codes[row])
        return number if self.row[number] >= 0 else -1

    def uri(self, number: int) -> str:
        """The planned address of a video."""
        (table,) = self._rows.take(self.row[[number]])
        return str(table.column("uri")[0])

    def by_id(self, video_ids: Collection[str]) -> dict[str, PlannedVideo]:
        """Some videos, read together."""
        numbers = sorted(n for n in map(self.number, video_ids) if n is not None)
        return {video.source.video_id: video for video in self.at(np.array(numbers, np.int64))}

    def at(self, numbers: NDArray[np.int64] | None = None) -> Iterator[PlannedVideo]:
        """Videos by their numbers; None: all."""
        rows = self.row if numbers is None else self.row[numbers]
        return self._read(rows[rows >= 0])

    def _read(self, rows: NDArray[np.int64]) -> Iterator[PlannedVideo]:
        return (video for table in self._rows.take(rows) for video in videos_of(table))

    def column(self, name: str) -> NDArray[np.int64]:
        """(names,) a number of each video; 0 of those that another has taken the place of."""
        return np.where(self._is_live, self._rows.numbers(name)[self.row], 0)

    def with_failures(self) -> NDArray[np.int64]:
        """Numbers of the videos whose scan already knows that something is lost."""
        lengths = pc.list_value_length(self._rows.column("failures")).to_numpy()
        return np.flatnonzero(self._is_live & (lengths[self.row] > 0)) if len(self.row) else np.zeros(0, np.int64)


class _Values(ValuesView[PlannedVideo]):
    _mapping: Videos

    def __iter__(self) -> Iterator[PlannedVideo]:
        return self._mapping.at()


class _Items(ItemsView[str, PlannedVideo]):
    _mapping: Videos

    def __iter__(self) -> Iterator[tuple[str, PlannedVideo]]:
        return ((video.source.video_id, video) for video in self._mapping.at())


def _chosen(names: Names, rows: Blocks) -> NDArray[np.int64]:
    """(names,) the row that describes each video: the last that is no copy, or else the first."""
    chosen = np.full(len(names), -1, np.int64)
    numbers = np.arange(len(rows))
    is_copy = np.asarray(rows.numbers("is_copy"), np.bool_)
    # Of an index that is there several times, the last value is assigned.
    chosen[names.codes[::-1]] = numbers[::-1]
    chosen[names.codes[~is_copy]] = numbers[~is_copy]
    _drop_superseded(chosen, rows)
    return chosen


def _drop_superseded(chosen: NDArray[np.int64], rows: Blocks) -> None:
    """An input that once could not be read has an id of its address; it goes when the address is read after all."""
    is_unread = rows.numbers("size_bytes")[chosen] < 0 if len(chosen) else np.zeros(0, np.bool_)
    if not is_unread.any():
        return
    uris = rows.column("uri")
    read = uris.take(pa.array(chosen[~is_unread]))
    is_read = pc.is_in(uris.take(pa.array(chosen[is_unread])), value_set=read)
    chosen[np.flatnonzero(is_unread)[is_read.to_numpy()]] = -1


class Shards(Mapping[str, list[Unit]]):
    """The shards of a plan by id, each with its units in the order of its rows; a unit that is there twice is one."""

    def __init__(self, videos: Names, rows: NDArray[np.int32], units: pa.StructArray) -> None:
        self._videos = videos
        self._names = Names(pa.chunked_array([units.field("shard_id")]))
        order = np.argsort(self._names.codes, kind="stable")
        self._starts = np.searchsorted(self._names.codes[order], np.arange(len(self._names) + 1))
        self._video: NDArray[np.int32] = rows[order]
        self._first: NDArray[np.int32] = units.field("first").to_numpy()[order]
        self._count: NDArray[np.int32] = units.field("count").to_numpy()[order]

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, shard_id: object) -> bool:
        return isinstance(shard_id, str) and self._names.number(shard_id) is not None

    def __getitem__(self, shard_id: str) -> list[Unit]:
        part = self._part(shard_id)
        ids = self._videos.of(self._video[part])
        units = map(Unit, ids, self._first[part].tolist(), self._count[part].tolist())
        return list(dict.fromkeys(units))

    def videos(self, shard_id: str) -> NDArray[np.int32]:
        """(units,) numbers of the videos of a shard."""
        return self._video[self._part(shard_id)]

    def counts(self, shard_id: str) -> NDArray[np.int32]:
        """(units,) clips of each unit of a shard."""
        return self._count[self._part(shard_id)]

    def units_of(self, video_ids: Collection[str]) -> Iterator[tuple[str, Unit]]:
        """The units of some videos, each with its shard."""
        numbers = [number for number in map(self._videos.number, video_ids) if number is not None]
        units = np.flatnonzero(np.isin(self._video, numbers))
        holders = np.unique(np.searchsorted(self._starts, units, side="right") - 1)
        for shard_id in self._names.of(holders.astype(np.int32)):
            yield from ((shard_id, unit) for unit in self[shard_id] if unit.video_id in video_ids)

    def _part(self, shard_id: str) -> slice:
        number = self._names.number(shard_id)
        if number is None:
            raise KeyError(shard_id)
        return slice(int(self._starts[number]), int(self._starts[number + 1]))


class Addresses:
    """Every address with its stamp that was read, and what it held; where that was read twice, the last time."""

    def __init__(self, rows: Blocks, videos: Names) -> None:
        self._rows, self._videos = rows, videos
        self._index = HashIndex(hashes_of(self, len(rows)))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Addresses and stamps, one that was read twice two times."""
        return (address for table in self._rows.batches(ADDRESS) for address in _addresses(table))

    def __contains__(self, address: object) -> bool:
        return isinstance(address, tuple) and self.number(*address) is not None

    def number(self, uri: str, stamp: str) -> int | None:
        """The number of the video that was found there."""
        (row,) = self.rows([(uri, stamp)])
        return None if row < 0 else int(self._videos.codes[row])

    def rows(self, addresses: Sequence[tuple[str, str]]) -> list[int]:
        """The row of each address; -1 of those that were never read."""
        rows = self._index.last(hashes_of(addresses, len(addresses)))
        # In the order of the plan: its blocks are opened once.
        order = np.argsort(rows, kind="stable")
        order = order[rows[order] >= 0]
        held = (address for table in self._rows.take(rows[order]) for address in _addresses(table))
        for position, address in zip(order.tolist(), held, strict=True):
            if address != addresses[position]:
                rows[position] = -1
        return rows.tolist()  # type: ignore[no-any-return]


def _addresses(table: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(*(table.column(name).to_pylist() for name in ADDRESS), strict=True)


class Plan:
    """A plan as it was read.

    Args:
        tables: Its rows, in the order in which they were added.
    """

    def __init__(self, tables: Iterable[pa.Table] = ()) -> None:
        units: list[pa.Array] = []
        lengths: list[NDArray[np.int64]] = []
        schema = VIDEOS.remove(VIDEOS.get_field_index("units"))
        rows = Blocks(_without_units(tables, units, lengths), schema)
        self.videos = Videos(rows)
        self.addresses = Addresses(rows, self.videos.names)
        count = np.concatenate([np.zeros(0, np.int64), *lengths])
        flat = pa.concat_arrays(units) if units else pa.array([], VIDEOS.field("units").type.value_type)
        self.shards = Shards(self.videos.names, np.repeat(self.videos.names.codes, count), flat)

    def attempts_of(self, video_ids: Collection[str]) -> Counter[Clip]:
        """How many shards each clip of these videos was planned for."""
        return Counter(clip for _, unit in self.shards.units_of(video_ids) for clip in unit.clips)


def read_plan(store: Store, *, broken: list[str] | None = None) -> Plan:
    """All rows of a run, in the order in which they were added."""
    return Plan(read_tables(store, FOLDER, VIDEOS, broken))


def _without_units(
    tables: Iterable[pa.Table], units: list[pa.Array], lengths: list[NDArray[np.int64]]
) -> Iterator[pa.Table]:
    for table in tables:
        column = table.column("units")
        lengths.append(pc.list_value_length(column).to_numpy().astype(np.int64))
        units.append(pc.list_flatten(column).combine_chunks())
        yield table.drop_columns(["units"])
