"""Inputs to video sources: files, folders, globs, lists and archives, local or on an object store."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.errors import DecodeError, InputError
from pipeline.failed_range import FailedRange
from pipeline.inputs.addresses import is_utf8, is_video, printable, stamped, unreadable_input, whole_address
from pipeline.inputs.archives import is_archive, members
from pipeline.inputs.folders import WILD, is_broken, local, matches_of, videos_of
from pipeline.inputs.lists import is_list, rows_of_list
from pipeline.inputs.named import Input, Named, VideoSource
from pipeline.inputs.objects import WEB, objects_of, protocol_of, stamp_of, with_stamps
from pipeline.plan.spans import address_of_part, split_address, split_id
from pipeline.video.numbered import is_numbered, numbered_pictures
from pipeline.video.ranges import open_bytes

CELL = "parquet://"
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

    Nothing is opened but lists and the tables of archives: folders and object stores are listed, and objects that are
    named one by one are asked for their stamps.

    Raises:
        InputError: nothing at all was found.
    """
    count = 0
    problems: list[str] = []
    for item in with_stamps(item for text in texts for item in _found(text, printable(text), frozenset())):
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


def _found(text: str, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    """As `_expand`, with what cannot be found as a failure."""
    try:
        yield from _expand(text, named, lists)
    except InputError as error:
        yield unreadable_input(whole_address(text), "io", str(error))


def _expand(text: str, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    """What one address names; a part of a video stays one.

    Raises:
        InputError: it names nothing.
    """
    address, span = split_address(text)
    try:
        for item in _expand_whole(address, named, lists):
            if span is None or isinstance(item, FailedRange) or split_address(item.input.uri)[1] is not None:
                yield item
            else:
                yield replace(item, input=replace(item.input, uri=address_of_part(item.input.uri, span)))
    except InputError:
        raise
    # A name that no file can have, a folder that may not be read, a store that is not installed or not there.
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        raise InputError(f"{printable(text)}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _expand_whole(text: str, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    if "://" in text and not text.startswith("file://"):
        yield from _expand_remote(text, named, lists)
        return
    address = whole_address(text.removeprefix("file://"))
    path = Path(address)
    if path.is_dir():
        yield from videos_of(path, named)
    elif path.is_file():
        yield from _expand_file(path, named, lists)
    elif is_numbered(text):
        numbered_pictures(text)
        yield Named(named, Input(uri=text))
    elif any(sign in text for sign in WILD):
        yield from _expand_glob(text, address, named, lists)
    elif is_broken(path):
        yield local(path, named)
    else:
        raise InputError(f"{text}: no such file or folder")


def _expand_glob(text: str, pattern: str, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    count = 0
    for path in matches_of(pattern):
        if isinstance(path, FailedRange):
            yield path
        elif not path.name.startswith("._"):
            count += 1
            yield from _found(str(path), named, lists) if is_archive(path.name) else (local(path, named),)
    if not count:
        raise InputError(f"{text}: no file matches this glob")


def _expand_file(path: Path, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    """One file that is there: a video, a list or an archive."""
    uri = str(path)
    if not is_utf8(uri) or not (is_list(uri) or is_archive(uri)):
        yield local(path, named)
    elif is_list(uri):
        yield from _expand_list(uri, named, lists, stamped(uri).stamp)
    else:
        yield from _expand_archive(uri, named, stamped(uri).stamp)


def _expand_remote(text: str, named: str, lists: frozenset[str]) -> Iterator[Named | FailedRange]:
    if is_list(text) and "*" not in text:
        yield from _expand_list(text, named, lists, stamp_of(text))
    elif is_archive(text) and "*" not in text:
        yield from _expand_archive(text, named, stamp_of(text))
    elif "::" in text or protocol_of(text) in WEB or (is_video(text) and "*" not in text):
        yield Named(named, Input(uri=text))
    else:
        for item in objects_of(text, named):
            yield from _found(item.input.uri, named, lists) if is_archive(item.input.uri) else (item,)


def _expand_archive(uri: str, named: str, stamp: str) -> Iterator[Named | FailedRange]:
    for member, size_bytes in members(uri):
        if is_utf8(member):
            yield Named(named, Input(uri=member, size_bytes=size_bytes, stamp=stamp))
        else:
            yield unreadable_input(member, "io", f"{printable(member)}: the name is not UTF-8: pack the archive again")


def _expand_list(uri: str, named: str, lists: frozenset[str], stamp: str) -> Iterator[Named | FailedRange]:
    """What the rows of a list name; relative ones are relative to the list."""
    if uri in lists:
        raise InputError(f"{uri}: the list names itself")
    with closing(io.BufferedReader(open_bytes(uri))) as stream:
        for row in rows_of_list(uri, cast(BinaryIO, stream)):
            if row.problem:
                yield unreadable_input(f"{uri}#row={row.number}", "io", f"{uri}: row {row.number}: {row.problem}")
            elif row.address.startswith(CELL) and "::" not in row.address:
                cell = address_of_part(f"{row.address}::{uri}", row.span)
                yield Named(named, Input(uri=cell, stamp=stamp), row.labels)
            else:
                is_whole = "://" in row.address or Path(row.address).is_absolute()
                address = row.address if is_whole else f"{uri.rpartition('/')[0].rstrip('/')}/{row.address}"
                for item in _found(address_of_part(address, row.span), named, lists | {uri}):
                    yield replace(item, labels=row.labels or item.labels) if isinstance(item, Named) else item


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
        same = identify(source.uri).video_id == split_id(source.video_id)[0]
    except OSError:
        # Gone or unreadable: what opens it next says so.
        return
    if not same:
        raise DecodeError(
            "io", f"{source.uri}: its content changed since it was scanned: extract it again when it is whole"
        )


def identify(uri: str) -> VideoSource:
    """The source of a uri, its id taken from size, first and last MiB: renaming or moving a video changes nothing.

    Of a part of a video it is the source of all of it.

    Raises:
        OSError: it cannot be read.
    """
    uri = split_address(uri)[0]
    with open_bytes(uri) as stream:
        head = stream.read(ID_SPAN_BYTES)
        size_bytes = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size_bytes - ID_SPAN_BYTES))
        tail = stream.read(ID_SPAN_BYTES)
    digest = hashlib.sha256(b"%d\0%s\0%s" % (size_bytes, head, tail)).hexdigest()
    return VideoSource(video_id=digest[:32], uri=uri, size_bytes=size_bytes)
