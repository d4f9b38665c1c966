"""An object store of which what was opened is kept on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.store.publish import OLD_S, publish
from pipeline.store.store import Entry, HashingFile, Store


@dataclass(frozen=True, slots=True)
class LocalCopies:
    """Reads a file once and keeps it, as long as its size and stamp stay; all else goes to the store."""

    store: Store
    folder: Path

    @property
    def address(self) -> str:
        """The store's."""
        return self.store.address

    def open(self, name: str) -> BinaryIO:
        """See `Store`."""
        entry = self.store.entry(name)
        if entry is None:
            return self.store.open(name)
        key = hashlib.sha256(f"{name} {entry.size_bytes} {entry.stamp}".encode()).hexdigest()[:32]
        path = self.folder / f"{key}-{Path(name).name}"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            with publish(path) as stream:
                for first in range(0, entry.size_bytes, 1 << 24):
                    stream.write(self.store.get(name, first, min(first + (1 << 24), entry.size_bytes)))
        return path.open("rb")

    def make(self) -> None:
        """See `Store`."""
        self.store.make()

    def put(self, name: str, data: bytes, *, only_if_absent: bool = False) -> None:
        """See `Store`."""
        self.store.put(name, data, only_if_absent=only_if_absent)

    def writer(self, name: str) -> AbstractContextManager[HashingFile]:
        """See `Store`."""
        return self.store.writer(name)

    def get(self, name: str, first: int = 0, last: int | None = None) -> bytes:
        """See `Store`."""
        return self.store.get(name, first, last)

    def entry(self, name: str) -> Entry | None:
        """See `Store`."""
        return self.store.entry(name)

    def list(self, under: str = "") -> Iterator[Entry]:
        """See `Store`."""
        return self.store.list(under)

    def delete(self, name: str) -> None:
        """See `Store`."""
        self.store.delete(name)

    def is_empty(self) -> bool:
        """See `Store`."""
        return self.store.is_empty()

    def sweep(self, older_than_s: float = OLD_S) -> None:
        """See `Store`."""
        self.store.sweep(older_than_s)
