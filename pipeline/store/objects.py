"""A prefix of an object store as a store, by way of fsspec: s3, gcs, and memory for tests."""

from __future__ import annotations

import io
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from pipeline.store.publish import OLD_S
from pipeline.store.store import Entry, HashingFile, TakenError

RETRY_WAITS_S = (0.2, 0.8, 3.2, 6.4)
PERMANENT_STATUS = frozenset(range(400, 500)) - {408, 425, 429}
PRECONDITION_FAILED = 412
READ_BYTES = 1 << 20
"""A read of less asks for so much: neighbours are wanted next."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """Objects appear by one PUT or a completed multipart upload. Credentials are the environment's, never kept here."""

    address: str

    def connected(self) -> ObjectStore:
        """This store, once its file system is known to be installed."""
        assert self._filesystem
        return self

    @property
    def _filesystem(self) -> Any:
        # fsspec keeps one connection a process and address.
        return fsspec.url_to_fs(self.address, use_listings_cache=False)[0]

    def _path(self, name: str) -> str:
        root = str(self._filesystem._strip_protocol(self.address)).rstrip("/")
        return f"{root}/{name}" if name else root

    def make(self) -> None:
        """See `Store`: object stores have no folders."""

    def put(self, name: str, data: bytes, *, only_if_absent: bool = False) -> None:
        """See `Store`."""
        mode = "create" if only_if_absent else "overwrite"
        attempts = 0

        def request() -> None:
            nonlocal attempts
            attempts += 1
            self._filesystem.pipe_file(self._path(name), data, mode=mode)

        try:
            patiently(f"{self.address}/{name}", request)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise OSError(f"{self.address}: there is no such bucket") from error
            if not only_if_absent or not _is_taken(error):
                raise
            # An answer may be lost on the way after the object was stored: then it is our own.
            if attempts == 1 or self.get(name) != data:
                raise TakenError(f"{self.address}/{name} is there already") from error

    @contextmanager
    def writer(self, name: str) -> Iterator[HashingFile]:
        """See `Store`. The bytes are kept on the local disk until they are whole; memory does not grow with them."""
        with tempfile.NamedTemporaryFile(prefix="vtm-") as stream:
            file = HashingFile(cast(BinaryIO, stream))
            yield file
            stream.flush()
            patiently(f"{self.address}/{name}", lambda: self._filesystem.put_file(stream.name, self._path(name)))

    def get(self, name: str, first: int = 0, last: int | None = None) -> bytes:
        """See `Store`."""
        if last is not None and last <= first:
            return b""
        span: dict[str, int] = {} if (first, last) == (0, None) else {"start": first}
        if last is not None:
            span["end"] = last

        def request() -> bytes:
            data: bytes = self._filesystem.cat_file(self._path(name), **span)
            if last is not None and len(data) != last - first:
                raise ConnectionError(f"{len(data)} of {last - first} bytes came")
            return data

        return patiently(f"{self.address}/{name}", request)

    def open(self, name: str) -> BinaryIO:
        """See `Store`."""
        entry = self.entry(name)
        if entry is None:
            raise FileNotFoundError(2, "no such object", f"{self.address}/{name}")
        return cast(BinaryIO, io.BufferedReader(RangeReader(self, entry), READ_BYTES))

    def entry(self, name: str) -> Entry | None:
        """See `Store`."""
        try:
            about = patiently(f"{self.address}/{name}", lambda: self._filesystem.info(self._path(name)))
        except FileNotFoundError:
            return None
        return None if about["type"] != "file" else _entry(name, about)

    def list(self, under: str = "") -> Iterator[Entry]:
        """See `Store`."""
        folder, root = self._path(under.rstrip("/")), self._path("")

        def request() -> dict[str, dict[str, Any]]:
            self._filesystem.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._filesystem.find(folder, detail=True)
            return found

        try:
            found = patiently(f"{self.address}/{under}", request)
        except FileNotFoundError:
            return
        for path in sorted(found):
            if path.startswith(f"{root}/"):
                yield _entry(path[len(root) + 1 :], found[path])

    def delete(self, name: str) -> None:
        """See `Store`."""
        try:
            patiently(f"{self.address}/{name}", lambda: self._filesystem.rm_file(self._path(name)))
        except FileNotFoundError:
            return

    def is_empty(self) -> bool:
        """See `Store`."""
        return next(self.list(), None) is None

    def sweep(self, older_than_s: float = OLD_S) -> None:
        """See `Store`: multipart uploads that were never completed."""
        filesystem = self._filesystem
        if not hasattr(filesystem, "list_multipart_uploads"):
            return
        bucket, _, prefix = self._path("").partition("/")
        for upload in _uploads(filesystem, self.address, bucket, f"{prefix}/"):
            age_s = (datetime.now(timezone.utc) - upload["Initiated"]).total_seconds()
            if age_s > older_than_s:
                filesystem.abort_mpu(bucket, upload["Key"], upload["UploadId"])


def _uploads(filesystem: Any, address: str, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Multipart uploads below a prefix that were not completed; a server gives at most 1000 at once."""
    place: dict[str, str] = {}
    while True:
        request = partial(filesystem.call_s3, "list_multipart_uploads", Bucket=bucket, Prefix=prefix, **place)
        answer = patiently(address, request)
        yield from answer.get("Uploads", [])
        if not answer.get("IsTruncated"):
            return
        place = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}


class RangeReader(io.RawIOBase):
    """An object as a file: each read is one range request.

    Args:
        store: Where it is.
        entry: What is known of it.
    """

    def __init__(self, store: ObjectStore, entry: Entry) -> None:
        self._store, self._entry, self._place = store, entry, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move without reading."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._entry.size_bytes}[whence]
        self._place = max(origin + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read by one request."""
        view = memoryview(buffer).cast("B")
        last = min(self._place + len(view), self._entry.size_bytes)
        data = self._store.get(self._entry.name, self._place, last)
        view[: len(data)] = data
        self._place += len(data)
        return len(data)


def patiently(what: str, request: Callable[[], Result]) -> Result:
    """Ask, again where that may help.

    Raises:
        FileNotFoundError: there is no such thing.
        OSError: it cannot be done.
    """
    for wait_s in (*RETRY_WAITS_S, None):
        try:
            return request()
        # Each file system has errors of its own, without a common class below Exception.
        except Exception as error:
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(2, "no such object", what) from error
            if wait_s is None or _is_permanent(error):
                raise OSError(f"{what}: {_reason(error)}") from error
            time.sleep(wait_s * random.uniform(0.5, 1.5))
    raise AssertionError("the last round returns or raises")


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, PermissionError | IsADirectoryError | FileExistsError | ImportError | TypeError):
        return True
    return _status(error) in PERMANENT_STATUS


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of botocore (`response`), aiohttp (`status`) or gcsfs (`code`) carries."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(seen, "status", None) or getattr(seen, "code", None)
        if isinstance(status, int):
            return status
        seen = seen.__cause__
    return None


def _is_taken(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, FileExistsError) or (cause is not None and _status(cause) == PRECONDITION_FAILED)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _entry(name: str, about: dict[str, Any]) -> Entry:
    stamp = about.get("ETag") or about.get("etag") or about.get("LastModified") or about.get("created") or ""
    return Entry(name, int(about["size"] or 0), str(stamp).strip('"'))


__all__ = ["ObjectStore", "RangeReader"]
