"""Where in a file key frames begin, kept for containers that have no index of their own; and when seeking pays.

MPEG-TS is searched by bisection, Ogg too, FLV from its start: each seek reads many times what it is after. A scan has
seen every packet, so its index names the byte at which to go on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

FORMATS = frozenset({"mpegts", "flv", "ogg"})
"""Names of libavformat for those that can be read from the byte at which a packet begins."""
LEAST_APART_BYTES = 256 << 10
MOST_PLACES = 16_384
"""Of a file: beyond them, places lie further apart."""
SKIP_READING_S = 10
"""A gap between wanted groups of a file on a disk that is sought across; a shorter one is cheaper to read through."""


def thinned(keys: Iterable[tuple[int, int]], size_bytes: int) -> tuple[tuple[int, int], ...]:
    """Some of the key frames, in the order of the file, which is also that of their ticks.

    Args:
        keys: ticks of key frames, and where in the file their packets begin (-1 where that is not known).
        size_bytes: of the file.

    Returns:
        Ticks and bytes, both increasing.
    """
    apart = max(LEAST_APART_BYTES, size_bytes // MOST_PLACES)
    kept: list[tuple[int, int]] = []
    for tick, byte in keys:
        if byte >= 0 and (not kept or (tick > kept[-1][0] and byte >= kept[-1][1] + apart)):
            kept.append((tick, byte))
    return tuple(kept)


def place_before(places: Sequence[tuple[int, int]], tick: int) -> tuple[int, int] | None:
    """The last of these places, increasing, at or before a tick."""
    number = bisect_right(places, (tick, 1 << 62))
    return places[number - 1] if number else None


def reading_pays_within_ticks(ticks_per_s: int, *, seek_bytes: int | None, bytes_per_tick: float = 0.0) -> int:
    """Ticks up to a wanted key frame that are cheaper to read through than to seek across.

    Args:
        ticks_per_s: of the stream.
        seek_bytes: what the last seek fetched over a network; None for a file on a disk.
        bytes_per_tick: of the file; 0 where that is not known.
    """
    if seek_bytes is None:
        return SKIP_READING_S * ticks_per_s
    return int(seek_bytes / bytes_per_tick) if bytes_per_tick > 0 else 0
