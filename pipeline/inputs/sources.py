"""Inputs to video sources: files, folders, globs, lists and archives, local or on an object store."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from pipeline.errors import DecodeError, FailureClass, InputError
from pipeline.inputs.archives import is_archive, members
from pipeline.inputs.lists import is_list, rows_of_list
from pipeline.values import FailedRange, Input, Named, VideoSource
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
ID_SPAN_BYTES = 1 << 20


def find_inputs(texts: Iterable[str]) -> Iterator[Input | FailedRange]:
    """Everything that the inputs name, each address once; what cannot be found as a failure.

    Raises:
        InputError: nothing at all was found.
    """
    seen: set[str] = set()
    for item in find_named(texts):
        if isinstance(item, FailedRange):
            yield item
        elif item.input.uri not in seen:
            seen.add(item.input.uri)
            yield item.input


def find_named(texts: Iterable[str]) -> Iterator[Named | FailedRange]:
    """Everything that the inputs name, with what lists say of it; what cannot be found as a failure.

    Nothing is opened but lists and the tables of archives: folders and object stores are listed.

    Raises:
        InputError: nothing at all was found.
    """
    count = 0
    problems: list[str] = []
    for text in texts:
        for item in _found(text, text, frozenset()):
            if isinstance(item, FailedRange):
                problems.append(item.message)
            else:
                count += 1
            yield item
    if not count:
        raise InputError("; ".join(problems) or "no input was given: name a video, a folder, a glob or a list file")


def expand(text: str) -> Iterator[str]:
    """The addresses that one input names, sorted within a folder or glob.

    Raises:
        InputError: it names none.
    """
    for item in _expand(text, text, frozenset()):
        if isinstance(item, Named):
            yield item.input.uri


def stamped(uri: str) -> Input:
    """An input with what its file system says of its content; for remote ones nothing is asked."""
    if "://" in uri:
        return Input(uri=uri)
    try:
        status = Path(uri).stat()
    except OSError:
        return Input(uri=uri)
    return Input(uri=uri, size_bytes=status.st_size, stamp=f"{status.st_mtime_ns}")


def _found(text: str, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    """As `_expand`, with what cannot be found as a failure."""
    try:
        yield from _expand(text, named, lists)
    except InputError as error:
        yield unreadable_input(_absolute(text), "io", str(error))


def _expand(text: str, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    if "://" in text and not text.startswith("file://"):
        yield from _expand_remote(text, named, lists)
        return
    path = Path(text.removeprefix("file://")).expanduser()
    if path.is_dir():
        found = [p for p in _walk(path, set()) if p.suffix.lower() in VIDEO_SUFFIXES]
        what = f"{text}: the folder holds no video (looked for {' '.join(sorted(VIDEO_SUFFIXES))})"
        yield from _nonempty((_local(p, named) for p in found), what)
    elif path.is_file():
        yield from _expand_file(_absolute(str(path)), named, lists)
    elif is_numbered(text):
        numbered_pictures(text)
        yield Named(named, Input(uri=text))
    elif any(c in text for c in "*?["):
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)
        matches = (p for p in sorted(anchor.glob(pattern)) if _is_file_or_broken(p) and not _is_shadow(p))
        items = (item for p in matches for item in _found_file(p, named, lists))
        yield from _nonempty(items, f"{text}: no file matches this glob")
    elif path.is_symlink():
        yield _local(path, named)
    else:
        raise InputError(f"{text}: no such file or folder")


def _found_file(path: Path, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    if path.is_symlink() and not path.exists():
        yield _local(path, named)
    elif is_archive(path.name):
        yield from _found(str(path), named, lists)
    else:
        yield _local(path, named)


def _expand_file(uri: str, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    """One file that is there: a video, a list or an archive."""
    if is_list(uri):
        yield from _expand_list(uri, uri.rpartition("/")[0], named, lists)
    elif is_archive(uri):
        stamp = stamped(uri).stamp
        for member, size_bytes in members(uri, VIDEO_SUFFIXES):
            yield Named(named, Input(uri=member, size_bytes=size_bytes, stamp=stamp))
    else:
        yield _local(Path(uri), named)


def _walk(folder: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
    """Files of a folder and below, sorted by path; links are followed, but not into a folder that leads there."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    try:
        items = sorted(folder.iterdir())
    except OSError:
        # Seen as a folder that holds nothing; its parent's other videos are not lost for it.
        return
    for item in items:
        if item.is_dir():
            yield from _walk(item, above | {here})
        elif _is_file_or_broken(item) and not _is_shadow(item):
            yield item


def _is_file_or_broken(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_shadow(path: Path) -> bool:
    """What macOS leaves beside a file on foreign disks: its attributes, under the video's name."""
    return path.name.startswith("._")


def _local(path: Path, named: str) -> Named | FailedRange:
    uri = _absolute(str(path))
    try:
        uri.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(uri).decode(errors="backslashreplace")
        return unreadable_input(shown, "io", f"{shown}: the name is not UTF-8: rename the file")
    if path.is_symlink() and not path.exists():
        return unreadable_input(uri, "io", f"{uri}: a link to {path.readlink()}, which is not there")
    return Named(named, stamped(uri))


def _absolute(text: str) -> str:
    """Addresses are kept whole, so that a run can be read from any directory."""
    return text if "://" in text else os.path.abspath(Path(text).expanduser())  # noqa: PTH100 - resolve() follows links


def _expand_remote(text: str, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    protocol = text.split("://", 1)[0]
    suffix = PurePosixPath(text.split("?", 1)[0]).suffix.lower()
    try:
        if is_list(text):
            yield from _expand_list(text, text.rsplit("/", 1)[0], named, lists)
        elif is_archive(text):
            for member, size_bytes in members(text, VIDEO_SUFFIXES):
                yield Named(named, Input(uri=member, size_bytes=size_bytes))
        elif suffix in VIDEO_SUFFIXES or protocol in ("http", "https"):
            yield Named(named, Input(uri=text))
        else:
            filesystem, root = fsspec.core.url_to_fs(text)
            find = filesystem.glob if "*" in root else filesystem.find
            found: dict[str, Any] = find(root, detail=True)
            names = sorted(n for n in found if PurePosixPath(n).suffix.lower() in VIDEO_SUFFIXES)
            items = (_remote(f"{protocol}://{n.lstrip('/')}", found[n], named) for n in names)
            yield from _nonempty(items, f"{text}: no video there")
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{text}: cannot be listed: {error}") from error


def _remote(uri: str, about: dict[str, Any], named: str) -> Named:
    """An object as it was listed: its etag changes with its content, so that it need not be read again."""
    stamp = about.get("ETag") or about.get("etag") or ""
    return Named(named, Input(uri=uri, size_bytes=int(about.get("size") or -1), stamp=str(stamp).strip('"')))


def _expand_list(uri: str, folder: str, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    """What the rows of a list name; relative ones are relative to the list."""
    if uri in lists:
        raise InputError(f"{uri}: the list names itself")
    with fsspec.open(uri, "rb") as stream:
        data: bytes = stream.read()
    for row in rows_of_list(uri, data):
        if row.address is None:
            where = f"{uri}#row={row.number}"
            yield unreadable_input(where, "io", f"{uri}: row {row.number} names no video")
            continue
        whole = "://" in row.address or Path(row.address).is_absolute()
        address = row.address if whole else f"{folder.rstrip('/')}/{row.address}"
        for item in _found(address, named, lists | {uri}):
            yield replace(item, labels=row.labels or item.labels) if isinstance(item, Named) else item


def _nonempty(items: Iterable[Named | FailedRange], message: str) -> Iterator[Named | FailedRange]:
    count = 0
    for count, item in enumerate(items, 1):  # noqa: B007 - the last count says whether there was one
        yield item
    if not count:
        raise InputError(message)


def has_changed(source: Input) -> bool:
    """Whether a file of this machine is another than it was when it was listed."""
    return bool(source.stamp) and "://" not in source.uri and stamped(source.uri) != source


def require_unchanged(source: VideoSource) -> None:
    """Refuse to go on with a file that is not what was scanned.

    Raises:
        DecodeError: its content is another by now (`io`: it may be whole another time).
    """
    now = stamped(source.uri)
    if "://" in source.uri or now.size_bytes < 0 or (now.size_bytes, now.stamp) == (source.size_bytes, source.stamp):
        return
    try:
        same = identify(source.uri).video_id == source.video_id
    except OSError:
        # Gone or unreadable: what opens it next says so.
        return
    if not same:
        raise DecodeError(
            "io", f"{source.uri}: its content changed since it was scanned: extract it again when it is whole"
        )


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
