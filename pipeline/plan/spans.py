"""Parts of videos. The start and end of a list's row become part of the address and of the id of what is extracted.

The address of a part is a media fragment (W3C Media Fragments URI 1.0): `film.mp4#t=30,90`. Its id is that of the whole
content, followed by start and end in milliseconds: `<32 hex digits>_30000_90000`, or `_end` where it has no end. Each
part is a video of its own, with its own clips, labels and failures; all parts share what scanning the video found.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import NamedTuple

from pipeline.errors import InputError

FRAGMENT = re.compile(r"#t=(\d+(?:\.\d{1,3})?)?(?:,(\d+(?:\.\d{1,3})?))?$")
TIMECODE = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")
OPEN_END = "end"


class Span(NamedTuple):
    """A part of a video, half open, in video time (0 = first frame)."""

    start_ms: int
    end_ms: int | None
    """None: to the end."""

    @property
    def fragment(self) -> str:
        """What follows the address of the video."""
        end = "" if self.end_ms is None else f",{_seconds(self.end_ms)}"
        return f"#t={_seconds(self.start_ms)}{end}"

    def instants(self, fps: Fraction, length: int) -> range:
        """The sampling times that lie in it, of a video that has `length` of them."""
        first = math.ceil(self.start_ms * fps / 1000)
        last = length if self.end_ms is None else min(length, math.ceil(self.end_ms * fps / 1000))
        return range(first, max(first, last))


def span_between(start: object, end: object) -> Span | None:
    """The part that two cells of a list name, in seconds or as h:mm:ss; None where both are empty.

    Raises:
        InputError: they name none.
    """
    start_ms, end_ms = _milliseconds("start", start), _milliseconds("end", end)
    if start_ms is None and end_ms is None:
        return None
    if end_ms is not None and end_ms <= (start_ms or 0):
        raise InputError(f"end {end} is not after start {0 if start_ms is None else start}")
    return Span(start_ms or 0, end_ms)


def _milliseconds(name: str, value: object) -> int | None:
    if value is None or value == "":
        return None
    try:
        match = TIMECODE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is not None:
            seconds = 3600 * int(match[1] or 0) + 60 * int(match[2]) + float(match[3])
        else:
            seconds = float(value)  # type: ignore[arg-type]
        if isinstance(value, bool) or not 0 <= seconds < math.inf:
            raise ValueError
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} {value!r} is no time: write seconds, as 90.5, or h:mm:ss, as 0:01:30.5") from error
    return round(seconds * 1000)


def split_address(uri: str) -> tuple[str, Span | None]:
    """The address of the video, and the part of it that an address names.

    Raises:
        InputError: it ends before it begins.
    """
    match = FRAGMENT.search(uri)
    if match is None or match[0] == "#t=":
        return uri, None
    return uri[: match.start()], span_between(match[1], match[2])


def split_id(video_id: str) -> tuple[str, Span | None]:
    """The id of the content, and the part of it that an id names."""
    content_id, _, text = video_id.partition("_")
    if not text:
        return video_id, None
    start, _, end = text.partition("_")
    return content_id, Span(int(start), None if end == OPEN_END else int(end))


def id_of_part(content_id: str, span: Span | None) -> str:
    """The id of a part of a content."""
    if span is None:
        return content_id
    return f"{content_id}_{span.start_ms}_{OPEN_END if span.end_ms is None else span.end_ms}"


def address_of_part(uri: str, span: Span | None) -> str:
    """The address of a part of what is at `uri`."""
    return uri if span is None else f"{uri}{span.fragment}"


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")
