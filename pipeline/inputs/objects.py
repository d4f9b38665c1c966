"""Objects of remote stores: listed where a folder or a glob is named, and asked for their stamps where they are not.

A stamp changes with an object's content. Known with its stamp, an object need not be read again when a run goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import fsspec

from pipeline.errors import InputError
from pipeline.failed_range import FailedRange
from pipeline.inputs.addresses import is_video
from pipeline.inputs.archives import is_archive
from pipeline.inputs.named import Input, Named
from pipeline.plan.spans import split_address

WEB = ("http", "https")
"""These list nothing, and what they say of an object costs a request as reading it does."""
BATCH = 20_000
"""Objects whose stamps are asked for together."""
LIST_FROM = 50
"""So many objects of one folder are listed; fewer are asked for one by one."""
THREADS = 16
STAMPS = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "mtime", "created")


def protocol_of(uri: str) -> str:
    """`s3` of `s3://bucket/key`."""
    return uri.split("://", 1)[0]


def objects_of(text: str, named: str) -> Iterator[Named]:
    """The videos below a prefix or of a glob, in order; of a glob also the archives.

    Raises:
        InputError: there is none.
        OSError, ValueError, ImportError: it cannot be listed.
    """
    filesystem, root = fsspec.core.url_to_fs(text)
    is_glob = "*" in root
    found: dict[str, Any] = (filesystem.glob if is_glob else filesystem.find)(root, detail=True)
    names = sorted(name for name in found if is_video(name) or (is_glob and is_archive(name)))
    if not names:
        raise InputError(f"{text}: no video there")
    for name in names:
        yield Named(named, _with_stamp(Input(uri=f"{protocol_of(text)}://{name.lstrip('/')}"), found[name]))


def with_stamps(items: Iterable[Named | FailedRange]) -> Iterator[Named | FailedRange]:
    """The same items, remote ones with what their stores say of them, as far as those say anything."""
    items = iter(items)
    while batch := list(islice(items, BATCH)):
        wanted = [item.input for item in batch if isinstance(item, Named) and _lacks_stamp(item.input)]
        known = _asked(wanted)
        for item in batch:
            yield replace(item, input=known.get(item.input.uri, item.input)) if isinstance(item, Named) else item


def _lacks_stamp(source: Input) -> bool:
    return not source.stamp and "://" in source.uri and "::" not in source.uri and protocol_of(source.uri) not in WEB


def _asked(sources: Sequence[Input]) -> dict[str, Input]:
    """What the stores say of objects, by their addresses."""
    if not sources:
        return {}
    folders = Counter(_folder(source.uri) for source in sources)
    listed: dict[str, Any] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(_listed, [folder for folder, count in folders.items() if count >= LIST_FROM]):
            listed |= found
        ask = partial(_about, listed=listed)
        about = list(pool.map(ask, sources))
    return {source.uri: _with_stamp(source, facts) for source, facts in zip(sources, about, strict=True) if facts}


def _folder(uri: str) -> str:
    return split_address(uri)[0].rpartition("/")[0]


def _listed(folder: str) -> dict[str, Any]:
    """What lies in a folder, by path; nothing where it cannot be listed: each object is then asked for."""
    try:
        filesystem, root = fsspec.core.url_to_fs(folder)
        return {item["name"]: item for item in filesystem.ls(root, detail=True)}
    # File systems and their networks have errors of their own, without a common class below Exception.
    except Exception:
        return {}


def _about(source: Input, listed: dict[str, Any]) -> dict[str, Any]:
    """What is known of one object; nothing where it cannot be had, which whoever reads it will say."""
    uri = split_address(source.uri)[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        found: dict[str, Any] = listed.get(path) or filesystem.info(path)
    except Exception:
        return {}
    return found


def _with_stamp(source: Input, about: dict[str, Any]) -> Input:
    stamp = next((about[name] for name in STAMPS if about.get(name)), "")
    return replace(source, size_bytes=int(about.get("size") or -1), stamp=str(stamp).strip('"'))


def stamp_of(uri: str) -> str:
    """What changes with the content of one object; empty where its store says nothing."""
    return _with_stamp(Input(uri=uri), _about(Input(uri=uri), {})).stamp
