"""The shards from which single clips were read last, kept open."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from pipeline.shards.rows import ShardReader, open_reader
from pipeline.store import Store

MOST_OPEN = 16


class OpenShards:
    """Readers of shard files; the one that was used longest ago is closed where there are too many."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._readers: OrderedDict[str, ShardReader] = OrderedDict()

    def reader(self, name: str) -> ShardReader:
        """The reader of a shard file, which is opened unless it is open.

        Raises:
            OSError, ValueError: it cannot be opened.
        """
        if name in self._readers:
            self._readers.move_to_end(name)
        else:
            if len(self._readers) >= MOST_OPEN:
                self._readers.popitem(last=False)[1].close()
            self._readers[name] = open_reader(self._store, name)
        return self._readers[name]

    def close(self) -> None:
        """Close them all; reading opens them again."""
        while self._readers:
            self._readers.popitem()[1].close()

    def __del__(self) -> None:
        # One that was unpickled in part has none.
        if "_readers" in self.__dict__:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        # Open files do not travel to the workers of a data loader.
        return self.__dict__ | {"_readers": OrderedDict()}
