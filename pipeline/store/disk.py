"""A folder as a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.store.publish import OLD_S, TEMPORARY_PREFIX, publish, sweep
from pipeline.store.store import Entry, HashingFile


@dataclass(frozen=True, slots=True)
class DiskStore:
    """A folder; files appear by renaming, or by linking where they may not be there yet."""

    root: Path

    @property
    def address(self) -> str:
        """The folder."""
        return str(self.root)

    def make(self) -> None:
        """See `Store`."""
        self.root.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, data: bytes, *, only_if_absent: bool = False) -> None:
        """See `Store`."""
        with publish(self._path(name), only_if_absent=only_if_absent) as stream:
            stream.write(data)

    @contextmanager
    def writer(self, name: str) -> Iterator[HashingFile]:
        """See `Store`."""
        with publish(self._path(name)) as stream:
            yield HashingFile(stream)

    def _path(self, name: str) -> Path:
        """Where to write a file; a root that somebody removed is not made again, as what it held is gone."""
        if not self.root.is_dir():
            raise FileNotFoundError(2, "the folder is not there any more", str(self.root))
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def get(self, name: str, first: int = 0, last: int | None = None) -> bytes:
        """See `Store`."""
        with (self.root / name).open("rb") as stream:
            stream.seek(first)
            return stream.read() if last is None else stream.read(last - first)

    def open(self, name: str) -> BinaryIO:
        """See `Store`."""
        return (self.root / name).open("rb")

    def entry(self, name: str) -> Entry | None:
        """See `Store`."""
        try:
            return _entry(name, (self.root / name).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, under: str = "") -> Iterator[Entry]:
        """See `Store`."""
        folders = [under.rstrip("/")]
        while folders:
            folder = folders.pop()
            try:
                found = sorted(os.scandir(self.root / folder), key=lambda item: item.name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for item in found:
                name = f"{folder}/{item.name}" if folder else item.name
                if item.is_dir():
                    folders.append(name)
                elif not item.name.startswith(TEMPORARY_PREFIX):
                    try:
                        yield _entry(name, item.stat())
                    except FileNotFoundError:
                        continue

    def delete(self, name: str) -> None:
        """See `Store`."""
        (self.root / name).unlink(missing_ok=True)

    def is_empty(self) -> bool:
        """See `Store`."""
        if self.root.exists() and not self.root.is_dir():
            return False
        if not self.root.is_dir():
            return True
        # Another driver may be about to open its run here.
        return all(path.name.startswith(TEMPORARY_PREFIX) for path in self.root.iterdir())

    def sweep(self, older_than_s: float = OLD_S) -> None:
        """See `Store`."""
        sweep(self.root, older_than_s)


def _entry(name: str, status: os.stat_result) -> Entry:
    return Entry(name, status.st_size, str(status.st_mtime_ns))
