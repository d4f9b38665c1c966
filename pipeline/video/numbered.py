"""Folders of numbered pictures as videos: `shots/%06d.png?rate=24` names the files and how many there are a second."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pipeline.errors import InputError

FORM = re.compile(r"^(?P<folder>.*/)?(?P<before>[^/%?]*)%0?(?P<digits>\d*)d(?P<after>[^/%?]*)\?rate=(?P<rate>[^?]*)$")


@dataclass(frozen=True, slots=True)
class NumberedPictures:
    """Pictures of one folder, in the order of their numbers, without a gap."""

    pattern: str
    """As libavformat takes it."""
    rate: Fraction
    first: int
    paths: tuple[Path, ...]


def is_numbered(uri: str) -> bool:
    """Whether an address names numbered pictures."""
    return "://" not in uri and FORM.match(uri) is not None


def numbered_pictures(uri: str) -> NumberedPictures:
    """The pictures that an address names, up to the first number that is missing.

    Raises:
        InputError: the rate is none, or there is no picture.
    """
    match = FORM.match(uri)
    assert match is not None
    try:
        rate = Fraction(match["rate"])
        if rate <= 0:
            raise ValueError
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{uri}: {match['rate']} is no rate: write ?rate=24 or ?rate=30000/1001") from error
    folder = Path(match["folder"] or ".")
    name = re.compile(rf"^{re.escape(match['before'])}(\d{{{match['digits'] or '1,'}}}){re.escape(match['after'])}$")
    found = {int(m[1]): path for path in sorted(folder.glob("*")) if (m := name.match(path.name))}
    if not found:
        raise InputError(f"{uri}: no file has such a name")
    first = min(found)
    count = next(i for i in range(len(found) + 1) if first + i not in found)
    paths = tuple(found[first + i] for i in range(count))
    return NumberedPictures(uri.rsplit("?", 1)[0], rate, first, paths)


class JoinedFiles(io.RawIOBase):
    """The bytes of several files one after the other, to tell their content by; the rate is part of it."""

    def __init__(self, pictures: NumberedPictures) -> None:
        self._head = f"rate {pictures.rate}\n".encode()
        self._parts = [(path, path.stat().st_size) for path in pictures.paths]
        self._size = len(self._head) + sum(size for _, size in self._parts)
        self._place = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move without reading."""
        self._place = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence] + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        last = self._size if size < 0 else min(self._place + size, self._size)
        found = [self._head[self._place : last]]
        start = len(self._head)
        for path, length in self._parts:
            first, end = max(self._place - start, 0), min(last - start, length)
            if first < end:
                with path.open("rb") as stream:
                    stream.seek(first)
                    found.append(stream.read(end - first))
            start += length
        data = b"".join(found)
        self._place += len(data)
        return data
