"""Where each committed clip is: which row of which shard. And single rows of a shard file, read at random."""

from __future__ import annotations

import bisect
import tarfile
from collections.abc import Container, Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import BinaryIO, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.shards.columns import clip_of
from pipeline.shards.commit_record import ShardManifest
from pipeline.shards.scan import clip_of_sample
from pipeline.store import Store
from pipeline.store.disk import DiskStore
from pipeline.values import TokenSet


class Rows(NamedTuple):
    """Consecutive clips of one video in consecutive rows of one shard."""

    video_id: str
    first: int
    count: int  # type: ignore[assignment]  # hides a method of tuples that nobody calls
    shard: int
    """Position among the manifests."""
    row: int


def first_of_each(manifests: Sequence[ShardManifest]) -> list[Rows]:
    """All clips in order of video and index; a clip that two shards hold is taken from the first."""
    found: list[Rows] = []
    for shard, manifest in enumerate(manifests):
        row = 0
        for unit in manifest.clips:
            found.append(Rows(unit.video_id, unit.first, unit.count, shard, row))
            row += unit.count
    found.sort(key=lambda rows: (rows.video_id, rows.first, rows.shard))
    return _without_overlap(found)


def _without_overlap(found: Sequence[Rows]) -> list[Rows]:
    kept: list[Rows] = []
    for rows in found:
        last = kept[-1] if kept else None
        end = last.first + last.count if last is not None and last.video_id == rows.video_id else 0
        skipped = max(0, end - rows.first)
        if skipped < rows.count:
            kept.append(Rows(rows.video_id, rows.first + skipped, rows.count - skipped, rows.shard, rows.row + skipped))
    return kept


class ShardReader(Protocol):
    """A shard file, open."""

    def clip(self, row: int) -> TokenSet:
        """One clip.

        Raises:
            OSError, ValueError, KeyError, IndexError: it cannot be read.
        """

    def close(self) -> None:
        """Let go of the file."""


def open_reader(store: Store, name: str) -> ShardReader:
    """Open a shard file of either format."""
    if isinstance(store, DiskStore) and name.endswith(".parquet"):
        return ParquetReader(pa.memory_map(str(store.root / name)))
    with ExitStack() as on_error:
        stream = on_error.enter_context(store.open(name))
        reader = ParquetReader(stream) if name.endswith(".parquet") else TarReader(stream)
        on_error.pop_all()
    return reader


class ParquetReader:
    """Reads a row group for a clip."""

    def __init__(self, stream: BinaryIO | pa.NativeFile) -> None:
        self._stream = stream
        self._file = pq.ParquetFile(stream, pre_buffer=True)
        groups = range(self._file.metadata.num_row_groups)
        self._ends = list(accumulate(self._file.metadata.row_group(group).num_rows for group in groups))

    def clip(self, row: int) -> TokenSet:
        """See `ShardReader`."""
        group = bisect.bisect_right(self._ends, row)
        if group == len(self._ends):
            raise IndexError(f"row {row} of {self._ends[-1] if self._ends else 0}")
        table = self._file.read_row_group(group)
        return clip_of(table.slice(row - (self._ends[group - 1] if group else 0), 1).to_pylist()[0])

    def close(self) -> None:
        """See `ShardReader`."""
        self._file.close()
        self._stream.close()


class TarReader:
    """Reads a sample for a clip; the table of members is made once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._samples: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    key, _, extension = member.name.partition(".")
                    self._samples.setdefault(key, {})[extension] = (member.offset_data, member.size)
        except tarfile.TarError as error:
            raise ValueError(str(error)) from error
        self._keys = list(self._samples)

    def clip(self, row: int) -> TokenSet:
        """See `ShardReader`."""
        return clip_of_sample(self.members(row))

    def members(self, row: int, only: Container[str] | None = None) -> dict[str, bytes]:
        """The members of one sample by their extension; `only` some of them are read.

        Raises:
            OSError, IndexError: they cannot be read.
        """
        members = {}
        for extension, (first, size) in self._samples[self._keys[row]].items():
            if only is None or extension in only:
                self._stream.seek(first)
                members[extension] = self._stream.read(size)
        return members

    def close(self) -> None:
        """See `ShardReader`."""
        self._stream.close()
