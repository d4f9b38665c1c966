"""Remote objects as seekable files: requests of bounded size, the next one under way while this one is decoded."""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem

from pipeline.progress import made_progress
from pipeline.video.numbered import JoinedFiles, is_numbered, numbered_pictures

READ_TIMEOUT_S = 30.0
RETRY_WAITS_S = (0.2, 0.8, 3.2)
PERMANENT_STATUS = frozenset(range(400, 500)) - {408, 425, 429}
LEAST_BYTES = 64 << 10
MOST_BYTES = 1 << 20
"""Of one request: it grows with what was read in a row, so that little is read in vain where reading jumps."""
GROWTH = 32
"""A request is at most this part of what was read in a row."""
WHOLE_MOST_BYTES = 64 << 20
"""An object on a server without ranges is fetched whole, once, up to this size; a larger one is refused."""
Result = TypeVar("Result")


def open_bytes(uri: str) -> io.RawIOBase:
    """The bytes of `uri`, to read anywhere; remote ones with limits and retries.

    Raises:
        OSError: it cannot be read.
    """
    if is_numbered(uri):
        return JoinedFiles(numbered_pictures(uri))
    return RangeFile(uri) if "://" in uri else io.FileIO(uri)


class RangeFile(io.RawIOBase):
    """A remote object as a seekable file, each request retried where that may help.

    Args:
        uri: an address that fsspec knows.
        timeout_s: for one request; a server that sends nothing for ever is otherwise waited for.
        waits_s: pauses before each further try.

    Raises:
        OSError: the object cannot be read, or is large and its server sends no ranges (all methods).
    """

    def __init__(
        self, uri: str, *, timeout_s: float = READ_TIMEOUT_S, waits_s: tuple[float, ...] = RETRY_WAITS_S
    ) -> None:
        if uri.startswith("parquet://"):
            # Imported here because it imports pyarrow.
            from pipeline.inputs.cells import register

            register()
        self._filesystem, self._path = fsspec.url_to_fs(uri)
        self._waits_s = waits_s
        # The synchronous face of an asynchronous file system takes a time limit with each call.
        self._limit = {"timeout": timeout_s} if isinstance(self._filesystem, AsyncFileSystem) else {}
        self._place = 0
        about = self._patiently(lambda: self._filesystem.info(self._path, **self._limit))
        if about["size"] is None:
            raise OSError("the server does not tell the size; range reads need it")
        self.size_bytes = int(about["size"])
        self._held: list[tuple[int, bytes]] = []
        """Parts of the object that are kept: the last one read, before it those that were asked to be."""
        self._kept = 0
        self._ahead: tuple[int, Future[bytes]] | None = None
        """Where the request under way begins, and what comes of it."""
        self._in_a_row = 0
        self.fetched_bytes = 0
        """So far, over the network."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="range")
        if not self._serves_ranges(uri, about):
            self._hold_whole(uri)

    def _serves_ranges(self, uri: str, about: dict[str, Any]) -> bool:
        """Whether the server sends parts; only those of HTTP may not."""
        if not uri.startswith(("http://", "https://")) or self.size_bytes <= LEAST_BYTES:
            return True
        if about.get("partial") is not None:
            return bool(about["partial"])
        request = urllib.request.Request(uri, headers={"Range": "bytes=0-0"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(answer.status == 206)
        except (OSError, ValueError):
            # It may ask for what only the file system knows to give; then the first request will tell.
            return True

    def _hold_whole(self, uri: str) -> None:
        if self.size_bytes > WHOLE_MOST_BYTES:
            size = f"{self.size_bytes / 1e6:.0f} MB"
            raise OSError(f"the server sends no ranges, and {size} are too much to fetch whole: download it first")
        data = self._patiently(lambda: self._filesystem.cat_file(self._path, **self._limit))
        if len(data) != self.size_bytes:
            raise OSError(f"{len(data)} of {self.size_bytes} bytes came")
        self._held, self._kept = [(0, data)], 1

    def close(self) -> None:
        """Let go of the request under way."""
        if not self.closed:
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

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
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size_bytes}[whence]
        self._place = max(origin + offset, 0)
        return self._place

    def peek(self, size: int) -> bytes:
        """The first bytes of the object; the place stays."""
        place, self._place = self._place, 0
        data = self.read(size)
        self._place = place
        return data

    def keep(self, first: int, last: int) -> bytes:
        """Read the bytes from `first` up to `last`, and keep them for as long as the file is open."""
        last = min(last, self.size_bytes)
        data = b"".join(self._fetch(start, min(start + MOST_BYTES, last)) for start in range(first, last, MOST_BYTES))
        self._held.insert(0, (first, data))
        self._kept += 1
        return data

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, or (-1) all that follow; fewer only at the end."""
        last = self.size_bytes if size < 0 else min(self._place + size, self.size_bytes)
        parts = []
        while self._place < last:
            made_progress()
            data = self._from_held(last)
            if data is None:
                self._advance()
                continue
            parts.append(data)
            self._place += len(data)
        return b"".join(parts)

    def _from_held(self, last: int) -> bytes | None:
        for start, held in self._held:
            if start <= self._place < start + len(held):
                return held[self._place - start : last - start]
        return None

    def _advance(self) -> None:
        """Hold what lies at the current place, and ask for what follows."""
        place, ahead = self._place, self._ahead
        previous = self._held[self._kept :]
        follows = bool(previous) and place == previous[0][0] + len(previous[0][1])
        self._in_a_row = self._in_a_row if follows else 0
        if ahead is not None and ahead[0] == place:
            data = ahead[1].result()
        else:
            if ahead is not None:
                ahead[1].cancel()
            data = self._fetch(place, place + self._request_bytes())
        self._ahead = None
        self._in_a_row += len(data)
        self._held[self._kept :] = [(place, data)]
        following = place + len(data)
        # Only what is read in a row is worth reading ahead; a first request may be a look at a header.
        if follows and following < self.size_bytes:
            self._ahead = following, self._pool.submit(self._fetch, following, following + self._request_bytes())

    def _request_bytes(self) -> int:
        return min(max(self._in_a_row // GROWTH, LEAST_BYTES), MOST_BYTES)

    def _fetch(self, first: int, last: int) -> bytes:
        return self._patiently(lambda: self._range(first, min(last, self.size_bytes)))

    def _range(self, first: int, last: int) -> bytes:
        data: bytes = self._filesystem.cat_file(self._path, start=first, end=last, **self._limit)
        self.fetched_bytes += len(data)
        if len(data) == self.size_bytes != last - first:
            raise NotImplementedError("the server sends no ranges: download the object first")
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


PERMANENT_ERRORS = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    ImportError,
    ValueError,
    NotImplementedError,
    urllib.error.HTTPError,
)


def _is_permanent(error: Exception) -> bool:
    return isinstance(error, PERMANENT_ERRORS) or _status(error) in PERMANENT_STATUS


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
    kind = "" if isinstance(error, NotImplementedError) else kind
    return ": ".join(part for part in (kind, text[0] if text else "") if part)
