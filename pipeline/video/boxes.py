"""The boxes of an mp4 file (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pipeline.video.ranges import RangeFile

MOST_TABLE_BYTES = 256 << 20
MOST_BOXES = 64
"""At the top level, before the one that is looked for."""


def keep_movie_box(file: RangeFile) -> bytes | None:
    """The content of an object's `moov` box, which is then kept in memory; None where it is no mp4 file with one."""
    place, size = 0, file.size_bytes
    if file.peek(8)[4:] not in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return None
    for _ in range(MOST_BOXES):
        if place + 16 > size:
            return None
        file.seek(place)
        head = file.read(16)
        if len(head) < 16:
            return None
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1:
            length = struct.unpack(">Q", head[8:16])[0]
        if kind == b"moof" or (length and length < 8):
            return None
        length = length or size - place
        if kind == b"moov":
            return file.keep(place, place + length)[8:] if length <= MOST_TABLE_BYTES else None
        place += length
    return None


def boxes_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each box.

    Raises:
        ValueError: a box reaches beyond `data`.
    """
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, place + 8)[0], 16
        size = size or len(data) - place
        if size < head or place + size > len(data):
            raise ValueError("a box reaches beyond its parent")
        yield kind, data[place + head : place + size]
        place += size
