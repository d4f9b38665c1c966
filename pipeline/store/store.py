"""What every store can do, and a file that is hashed while it is written."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from pipeline.progress import made_progress


class TakenError(OSError):
    """A name is there already."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a store."""

    name: str
    """Relative to the store, with `/` between folders."""
    size_bytes: int
    stamp: str
    """Changes when the content does."""


class HashingFile(io.RawIOBase):
    """A file that is written once, from its start to its end, and hashed on the way.

    Args:
        stream: Where the bytes go.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes written."""
        return self.size_bytes

    def write(self, data: Any) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")
        self._stream.write(view)
        made_progress()
        self._digest.update(view)
        self.size_bytes += len(view)
        return len(view)

    @property
    def sha256(self) -> str:
        """Hex digits over what was written."""
        return self._digest.hexdigest()


class Store(Protocol):
    """Put, get, list, delete. Names are relative, with `/` between folders. Errors are OSErrors of one line."""

    @property
    def address(self) -> str:
        """How a person names it."""

    def make(self) -> None:
        """Make the place ready to be written to. Whoever writes later finds it, or finds that it was removed.

        Raises:
            OSError: it cannot be made.
        """

    def put(self, name: str, data: bytes, *, only_if_absent: bool = False) -> None:
        """Store an object, whole or not at all.

        Raises:
            TakenError: it was to be put only if absent, and is there.
            OSError: it cannot be written.
        """

    def writer(self, name: str) -> AbstractContextManager[HashingFile]:
        """A file that becomes the object, whole, when the block ends without an error."""

    def get(self, name: str, first: int = 0, last: int | None = None) -> bytes:
        """The bytes of an object from `first` up to, not including, `last`.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: it cannot be read.
        """

    def open(self, name: str) -> BinaryIO:
        """An object to be read anywhere.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: it cannot be read.
        """

    def entry(self, name: str) -> Entry | None:
        """What is known of one object; None where there is none."""

    def list(self, under: str = "") -> Iterator[Entry]:
        """All objects in a folder and below, those of one folder sorted by name; half-written ones are not seen."""

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""

    def is_empty(self) -> bool:
        """Whether nothing lies here."""

    def sweep(self, older_than_s: float = ...) -> None:
        """Remove what killed writers left half-written; what is young may be somebody's who is writing it."""
