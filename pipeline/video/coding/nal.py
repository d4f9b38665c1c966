"""NAL units, the packaging that H.264 and HEVC share."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.video.coding.facts import Data

START_CODE = b"\x00\x00\x01"


def nal_units(data: Data, length_bytes: int) -> Iterator[Data]:
    """Split a packet into NAL units, lazily.

    Args:
        data: one packet.
        length_bytes: of the length before each unit (ISO/IEC 14496-15); 0 for start codes.
    """
    if length_bytes:
        start, end = 0, len(data)
        while start + length_bytes < end:
            size = int.from_bytes(data[start : start + length_bytes], "big")
            start += length_bytes
            if size:
                yield data[start : start + size]
            start += size
        return
    raw = bytes(data)
    start = raw.find(START_CODE)
    while start >= 0:
        after = raw.find(START_CODE, start + 3)
        if len(nal := raw[start + 3 : after if after >= 0 else len(raw)]):
            yield nal
        start = after


def header_bytes(nal: Data, skip: int, most: int) -> bytes:
    """The first bytes after a unit's own header, without the bytes that keep start codes out (H.264, 7.3.1)."""
    raw = bytes(nal[skip : skip + most])
    return raw.replace(b"\x00\x00\x03", b"\x00\x00") if b"\x00\x00\x03" in raw else raw


def sei_payloads(nal: Data, skip: int) -> Iterator[tuple[int, bytes]]:
    """Types and payloads of a supplemental enhancement information unit (H.264 and HEVC, 7.3.2.3)."""
    raw = header_bytes(nal, skip, 4096)
    place = 0
    while place + 2 < len(raw):
        numbers = []
        for _ in range(2):
            number = 0
            while place < len(raw) and raw[place] == 0xFF:
                number += 255
                place += 1
            if place >= len(raw):
                return
            numbers.append(number + raw[place])
            place += 1
        kind, size = numbers
        yield kind, raw[place : place + size]
        place += size


def parameter_arrays(extradata: bytes, start: int) -> Iterator[bytes]:
    """Units of a decoder configuration record's arrays, each with a two-byte length, from `start` on."""
    while start + 2 <= len(extradata):
        size = int.from_bytes(extradata[start : start + 2], "big")
        yield extradata[start + 2 : start + 2 + size]
        start += 2 + size
