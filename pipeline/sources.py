"""Inputs to video sources: files, folders, globs and list files, local or on an object store."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import fsspec

from pipeline.errors import FailureClass, InputError
from pipeline.values import FailedRange, Input, VideoSource
from pipeline.video.numbered import is_numbered, numbered_pictures
from pipeline.video.ranges import open_bytes

VIDEO_SUFFIXES = frozenset(
    {
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".f4v",
        ".flv",
        ".gif",
        ".h264",
        ".h265",
        ".hevc",
        ".ivf",
        ".m2ts",
        ".m2v",
        ".m4v",
    }
    | {".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".rm", ".rmvb"}
    | {".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
LIST_SUFFIXES = frozenset({".txt", ".csv", ".jsonl", ".parquet"})
URI_COLUMNS = ("uri", "path", "video", "url", "file", "file_name", "filename")
ID_SPAN_BYTES = 1 << 20


def find_inputs(texts: Iterable[str]) -> Iterator[Input | FailedRange]:
    """Everything that the inputs name, each address once; what cannot be found as a failure.

    Nothing is opened but list files: folders and object stores are listed.

    Raises:
        InputError: nothing at all was found.
    """
    seen: set[str] = set()
    problems: list[str] = []
    for text in texts:
        try:
            for uri in expand(text):
                if uri not in seen:
                    seen.add(uri)
                    yield stamped(uri)
        except InputError as error:
            problems.append(str(error))
            yield unreadable_input(text, "io", str(error))
    if not seen:
        raise InputError("; ".join(problems) or "no input was given: name a video, a folder, a glob or a list file")


def stamped(uri: str) -> Input:
    """An input with what its file system says of its content; for remote ones nothing is asked."""
    if "://" in uri:
        return Input(uri=uri)
    try:
        status = Path(uri).stat()
    except OSError:
        return Input(uri=uri)
    return Input(uri=uri, size_bytes=status.st_size, stamp=f"{status.st_mtime_ns}")


def expand(text: str) -> Iterator[str]:
    """The uris that one input stands for, sorted within a folder or glob.

    Raises:
        InputError: it stands for none.
    """
    if "://" in text and not text.startswith("file://"):
        yield from _expand_remote(text)
        return
    path = Path(text.removeprefix("file://")).expanduser()
    if path.is_dir():
        yield from _nonempty(
            (str(p) for p in sorted(path.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()),
            f"{text}: the folder holds no video (looked for {' '.join(sorted(VIDEO_SUFFIXES))})",
        )
    elif path.is_file():
        yield from _expand_list(str(path), str(path.parent)) if path.suffix.lower() in LIST_SUFFIXES else [str(path)]
    elif is_numbered(text):
        numbered_pictures(text)
        yield text
    elif any(c in text for c in "*?["):
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)
        yield from _nonempty(
            (str(p) for p in sorted(anchor.glob(pattern)) if p.is_file()), f"{text}: no file matches this glob"
        )
    else:
        raise InputError(f"{text}: no such file or folder")


def _expand_remote(text: str) -> Iterator[str]:
    protocol = text.split("://", 1)[0]
    suffix = PurePosixPath(text.split("?", 1)[0]).suffix.lower()
    try:
        if suffix in LIST_SUFFIXES:
            yield from _expand_list(text, text.rsplit("/", 1)[0])
        elif suffix in VIDEO_SUFFIXES or protocol in ("http", "https"):
            yield text
        else:
            filesystem, root = fsspec.core.url_to_fs(text)
            names = filesystem.glob(root) if "*" in root else filesystem.find(root)
            found = sorted(n for n in names if PurePosixPath(n).suffix.lower() in VIDEO_SUFFIXES)
            yield from _nonempty((f"{protocol}://{n.lstrip('/')}" for n in found), f"{text}: no video there")
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{text}: cannot be listed: {error}") from error


def _expand_list(uri: str, folder: str) -> Iterator[str]:
    """Entries of a list file; relative ones are relative to the list."""
    suffix = PurePosixPath(uri.split("?", 1)[0]).suffix.lower()
    with fsspec.open(uri, "rb") as stream:
        data: bytes = stream.read()
    try:
        entries = list(_list_entries(data, suffix))
    except (ValueError, KeyError, IndexError, TypeError, csv.Error) as error:
        raise InputError(f"{uri}: is no {suffix[1:]} list of videos: {error}") from error
    for entry in _nonempty(entries, f"{uri}: the list names no video"):
        remote = "://" in entry or Path(entry).is_absolute()
        yield entry if remote else f"{folder.rstrip('/')}/{entry}"


def _list_entries(data: bytes, suffix: str) -> Iterator[str]:
    if suffix == ".parquet":
        from pipeline.shards.tables import read_text_column

        yield from read_text_column(data, URI_COLUMNS)
        return
    lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if suffix == ".txt":
        yield from lines
    elif suffix == ".jsonl":
        for line in lines:
            row = json.loads(line)
            yield str(row if isinstance(row, str) else row[_uri_column(list(row))])
    else:
        rows = csv.reader(io.StringIO("\n".join(lines)))
        header = next(rows, [])
        column = _uri_column(header)
        for row in rows:
            yield row[header.index(column)]


def _uri_column(names: list[str]) -> str:
    for name in URI_COLUMNS:
        if name in names:
            return name
    raise KeyError(f"no column named {', '.join(URI_COLUMNS)} among {', '.join(names)}")


def _nonempty(items: Iterable[str], message: str) -> Iterator[str]:
    count = 0
    for count, item in enumerate(items, 1):  # noqa: B007 - the last count says whether there was one
        yield item
    if not count:
        raise InputError(message)


def identify(uri: str) -> VideoSource:
    """The source of a uri, its id taken from size, first and last MiB: renaming or moving a video changes nothing.

    Raises:
        OSError: it cannot be read.
    """
    with open_bytes(uri) as stream:
        head = stream.read(ID_SPAN_BYTES)
        size_bytes = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size_bytes - ID_SPAN_BYTES))
        tail = stream.read(ID_SPAN_BYTES)
    digest = hashlib.sha256(b"%d\0%s\0%s" % (size_bytes, head, tail)).hexdigest()
    return VideoSource(video_id=digest[:32], uri=uri, size_bytes=size_bytes)


def unreadable_input(uri: str, failure: FailureClass, message: str) -> FailedRange:
    """The record of an input whose content, and so whose id, cannot be known: its address is used."""
    video_id = Input(uri=uri).unread_id
    return FailedRange(
        video_id=video_id, uri=uri, start_ns=0, end_ns=0, failure=failure, message=message, attempts=1, stage="find"
    )
