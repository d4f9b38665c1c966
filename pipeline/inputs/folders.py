"""Files of this machine's folders and globs. Links are followed; what cannot be had is a failure, never left out."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.counted import counted
from pipeline.errors import InputError
from pipeline.failed_range import FailedRange
from pipeline.inputs.addresses import is_utf8, is_video, stamped, unreadable_input, whole_address
from pipeline.inputs.archives import is_archive
from pipeline.inputs.named import Named
from pipeline.plan.spans import split_address

WILD = "*?["


def videos_of(folder: Path, named: str) -> Iterator[Named | FailedRange]:
    """The videos of a folder and of those below, in order of their paths.

    Raises:
        InputError: there is none.
    """
    count = archives = 0
    for item in walk(folder):
        if isinstance(item, FailedRange):
            yield item
        elif is_video(item.name) or (not item.suffix and is_broken(item)):
            count += 1
            yield local(item, named)
        archives += not isinstance(item, FailedRange) and is_archive(item.name)
    if not count:
        hint = f", but {counted(archives, 'archive')}: name archives by a glob, as {folder}/*.tar" if archives else ""
        raise InputError(f"{folder}: the folder holds no video{hint}")


def walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path | FailedRange]:
    """Files and broken links of a folder and below; links are followed, but not into a folder that leads there."""
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        items = sorted(folder.iterdir())
    except OSError as error:
        yield unreadable_input(str(folder), "io", f"{folder}: the folder cannot be listed: {error.strerror}")
        return
    for item in items:
        if item.is_dir():
            yield from walk(item, above | {here})
        elif item.is_file() or is_broken(item):
            yield item


def matches_of(pattern: str) -> Iterator[Path | FailedRange]:
    """Files and broken links that a glob names, in order; `**` is any number of folders, linked ones too."""
    parts = Path(pattern).parts
    plain = next(i for i, part in enumerate(parts) if _is_wild(part))
    return _matches(Path(*parts[:plain]), parts[plain:])


def _matches(folder: Path, parts: Sequence[str]) -> Iterator[Path | FailedRange]:
    part, rest = parts[0], parts[1:]
    if part == "**":
        for item in walk(folder):
            if isinstance(item, FailedRange) or _fits(item.relative_to(folder).parts, parts):
                yield item
    elif not _is_wild(part):
        if rest:
            yield from _matches(folder / part, rest)
        elif (folder / part).is_file() or is_broken(folder / part):
            yield folder / part
    else:
        try:
            found = sorted(item for item in folder.iterdir() if fnmatch.fnmatchcase(item.name, part))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield unreadable_input(str(folder), "io", f"{folder}: the folder cannot be listed: {error.strerror}")
            return
        for item in found:
            if rest and item.is_dir():
                yield from _matches(item, rest)
            elif not rest and (item.is_file() or is_broken(item)):
                yield item


def _is_wild(part: str) -> bool:
    return any(sign in part for sign in WILD)


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the names of a path fit the parts of a pattern, of which `**` is any number of folders."""
    if not parts:
        return not names
    if parts[0] == "**":
        return _fits(names, parts[1:] or ("*",)) or (len(names) > 1 and _fits(names[1:], parts))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def is_broken(path: Path) -> bool:
    """Whether it is a link to nothing."""
    return path.is_symlink() and not path.exists()


def local(path: Path, named: str) -> Named | FailedRange:
    """A file of this machine as an input."""
    uri = whole_address(str(path))
    if not is_utf8(uri):
        return unreadable_input(uri, "io", f"{uri}: the name is not UTF-8: rename the file")
    if split_address(uri)[1] is not None:
        return unreadable_input(uri, "io", f"{uri}: the name ends as the address of a part does: rename the file")
    if is_broken(path):
        return unreadable_input(uri, "io", f"{uri}: a link to {os.readlink(path)}, which is not there")  # noqa: PTH115
    return Named(named, stamped(uri))
