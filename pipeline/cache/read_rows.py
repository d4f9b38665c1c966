"""Clips of many shards in any order: each row group is decoded once, while those before it are in use."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from pipeline.cache.cached_clip import CachedClip
from pipeline.cache.shard_rows import ShardRows, Wanted, open_rows
from pipeline.errors import RunFolderError
from pipeline.store import Store
from pipeline.store.disk import DiskStore

OPEN_SHARDS = 64
HELD_BYTES = 512 << 20
"""Decoded row groups beyond which the shard that was used longest ago is let go, and read again when it is due."""


class RowAddress(NamedTuple):
    """Where a clip lies."""

    file: str
    row: int
    clip_id: str
    """That is committed there."""


def read_rows(store: Store, addresses: Sequence[RowAddress], wanted: Wanted) -> Iterator[CachedClip]:
    """The clips at these addresses, in this order.

    A row group stays in memory from the first of its clips that is wanted to the last, as long as `HELD_BYTES` are not
    exceeded. Of an object store, the next one is fetched in a thread.

    Raises:
        RunFolderError: a shard cannot be read, or holds other clips.
    """
    shards = _Shards(store, addresses, wanted)
    try:
        for file, row, clip_id in addresses:
            try:
                clip = shards.clip(file, row)
            # Torch raises RuntimeErrors where bytes do not fit a shape.
            except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
                raise RunFolderError(f"{store.address}: {file} cannot be read ({error}): run `vtm verify`") from error
            if clip.clip_id != clip_id:
                raise RunFolderError(f"{store.address}: {file} holds other clips than were committed: run `vtm verify`")
            yield clip
    finally:
        shards.close()


class _Shards:
    """The shards that are open, and the one that is opened next."""

    def __init__(self, store: Store, addresses: Sequence[RowAddress], wanted: Wanted) -> None:
        self._store, self._wanted = store, wanted
        self._rows: dict[str, list[int]] = {}
        for address in addresses:
            self._rows.setdefault(address.file, []).append(address.row)
        self._left = Counter({file: len(rows) for file, rows in self._rows.items()})
        self._due = iter(self._rows)
        # Not from a disk: memory that one thread takes and another gives back costs more than the reading.
        self._ahead = None if isinstance(store, DiskStore) else ThreadPoolExecutor(1, "read-ahead")
        self._next: tuple[str, Future[ShardRows]] | None = None
        self._open: OrderedDict[str, ShardRows] = OrderedDict()
        self._current = ""
        self._held_bytes = 0
        self._begin_next()

    def clip(self, file: str, row: int) -> CachedClip:
        """One clip of a shard, which is opened before its first and closed after its last."""
        rows = self._open.get(file) or self._begun(file)
        if file != self._current:
            self._open.move_to_end(file)
            self._current = file
        before_bytes = rows.held_bytes
        clip = rows.clip(row)
        self._held_bytes += rows.held_bytes - before_bytes
        self._left[file] -= 1
        if not self._left[file]:
            self._close_one(file)
        elif rows.held_bytes > before_bytes:
            self._let_go()
        return clip

    def _begun(self, file: str) -> ShardRows:
        if self._next is not None and self._next[0] == file:
            self._open[file] = self._next[1].result()
            self._begin_next()
        else:
            self._open[file] = self._opened(file)
        self._let_go()
        return self._open[file]

    def close(self) -> None:
        """Close them all."""
        if self._next is not None and not self._next[1].cancel() and self._next[1].exception() is None:
            self._next[1].result().close()
        for rows in self._open.values():
            rows.close()
        if self._ahead is not None:
            self._ahead.shutdown()

    def _opened(self, file: str) -> ShardRows:
        return open_rows(self._store, file, self._rows[file][-self._left[file] :], self._wanted, self._ahead)

    def _begin_next(self) -> None:
        file = None if self._ahead is None else next(self._due, None)
        self._next = None if self._ahead is None or file is None else (file, self._ahead.submit(self._opened, file))

    def _let_go(self) -> None:
        """Close what was used longest ago, as far as there is too much; what was used last stays."""
        while len(self._open) > 1 and (len(self._open) > OPEN_SHARDS or self._held_bytes > HELD_BYTES):
            self._close_one(next(iter(self._open)))

    def _close_one(self, file: str) -> None:
        rows = self._open.pop(file)
        self._held_bytes -= rows.held_bytes
        rows.close()
