"""An address to an open container: local paths straight to libavformat, all else by range reads of a megabyte."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem

READ_TIMEOUT_S = 30.0
RETRY_WAITS_S = (0.2, 0.8, 3.2)
PERMANENT_STATUS = frozenset(range(400, 500)) - {408, 425, 429}
Result = TypeVar("Result")


def open_bytes(uri: str) -> io.RawIOBase:
    """The bytes of `uri`, to read anywhere; remote ones with limits and retries.

    Raises:
        OSError: it cannot be read.
    """
    return RangeFile(uri) if "://" in uri else io.FileIO(uri)


class RangeFile(io.RawIOBase):
    """A remote object as a seekable file: each read is one range request, retried where that may help.

    Args:
        uri: an address that fsspec knows.
        timeout_s: for one request; a server that sends nothing for ever is otherwise waited for.
        waits_s: pauses before each further try.

    Raises:
        OSError: the object cannot be read (all methods).
    """

    def __init__(
        self, uri: str, *, timeout_s: float = READ_TIMEOUT_S, waits_s: tuple[float, ...] = RETRY_WAITS_S
    ) -> None:
        self._filesystem, self._path = fsspec.url_to_fs(uri)
        self._waits_s = waits_s
        # The synchronous face of an asynchronous file system takes a time limit with each call.
        self._limit = {"timeout": timeout_s} if isinstance(self._filesystem, AsyncFileSystem) else {}
        self._place = 0
        size = self._patiently(lambda: self._filesystem.info(self._path, **self._limit)["size"])
        if size is None:
            raise OSError("the server does not tell the size; range reads need it")
        self._size = int(size)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read begins, in bytes."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move without reading."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(origin + offset, 0)
        return self._place

    def peek(self, size: int) -> bytes:
        """The first bytes of the object; the place stays."""
        place, self._place = self._place, 0
        data = self.read(size)
        self._place = place
        return data

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes by one request."""
        first = self._place
        last = self._size if size < 0 else min(first + size, self._size)
        if first >= last:
            return b""
        data = self._patiently(lambda: self._range(first, last))
        self._place += len(data)
        return data

    def _range(self, first: int, last: int) -> bytes:
        data: bytes = self._filesystem.cat_file(self._path, start=first, end=last, **self._limit)
        if len(data) == self._size:
            # A server without ranges sends the whole.
            data = data[first:last]
        if len(data) != last - first:
            raise ConnectionError(f"{len(data)} of {last - first} bytes came")
        return data

    def _patiently(self, request: Callable[[], Result]) -> Result:
        for wait_s in (*self._waits_s, None):
            try:
                return request()
            # Each file system has errors of its own, without a common class below Exception.
            except Exception as error:
                if wait_s is None or _is_permanent(error):
                    raise OSError(_reason(error)) from error
                time.sleep(wait_s)
        raise AssertionError("the last round returns or raises")


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, ValueError)):
        return True
    return _status(error) in PERMANENT_STATUS


def _status(error: Any) -> int | None:
    """The HTTP status that an error of aiohttp (`status`) or botocore (`response`) carries."""
    status = getattr(error, "status", None)
    if status is None:
        response = getattr(error, "response", None)
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    return status if isinstance(status, int) else None


def _reason(error: Exception) -> str:
    text = str(error).splitlines()
    kind = "not found" if isinstance(error, FileNotFoundError) else type(error).__name__
    return f"{kind}: {text[0]}" if text else kind
