"""List files: rows that name videos or parts of them, folders, globs or further lists, and say things of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipeline.errors import InputError
from pipeline.inputs.addresses import suffix_of
from pipeline.plan.spans import Span, span_between

LIST_SUFFIXES = frozenset({".txt", ".csv", ".jsonl", ".parquet"})
URI_COLUMNS = ("uri", "path", "video", "url", "file", "file_name", "filename")
SPAN_COLUMNS = ("start", "end")
"""In seconds, or as h:mm:ss; empty: from the start, to the end."""


@dataclass(frozen=True, slots=True)
class ListRow:
    """One row of a list."""

    number: int
    """From 1, as people count; a header is not counted."""
    address: str = ""
    span: Span | None = None
    """The part of the video that is meant; None: all of it."""
    labels: str = ""
    """Its other columns, as a JSON object."""
    problem: str = ""
    """Why it names nothing, where it does not."""


def is_list(name: str) -> bool:
    """Whether a file is a list, by its name."""
    return suffix_of(name) in LIST_SUFFIXES


def rows_of_list(name: str, stream: BinaryIO) -> Iterator[ListRow]:
    """The rows of a list file.

    Raises:
        InputError: it is no such list, or names no video.
    """
    suffix = suffix_of(name)
    number = 0
    try:
        for number, row in enumerate(_rows(stream, suffix), 1):
            yield _list_row(number, row)
    except (ValueError, KeyError, IndexError, TypeError, csv.Error) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        raise InputError(f"{name}: is no {suffix[1:]} list of videos: {text}") from error
    if not number:
        raise InputError(f"{name}: the list names no video")


def _rows(stream: BinaryIO, suffix: str) -> Iterator[Any]:
    """Each row as its cells by their names, or as an address alone."""
    if suffix == ".parquet":
        from pipeline.inputs.parquet_list import read_rows

        yield from read_rows(stream)
        return
    text = stream.read().decode("utf-8-sig")
    if suffix == ".csv":
        yield from _csv_rows(text)
        return
    # Not by splitlines: captions may hold other line ends than that of a list.
    for line in (line.strip() for line in text.split("\n")):
        if line and not line.startswith("#"):
            yield line if suffix == ".txt" else json.loads(line)


def _csv_rows(text: str) -> Iterator[dict[str, str]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    told = (row for row in rows if row and not row[0].startswith("#") and (len(row) > 1 or row[0].strip()))
    names = next(told, [])
    _uri_column(names)
    for row in told:
        if len(row) != len(names):
            raise IndexError(f"a row has another number of cells than the header: {','.join(row)}")
        yield dict(zip(names, row, strict=True))


def _list_row(number: int, row: Any) -> ListRow:
    if not isinstance(row, Mapping):
        cells: dict[str, Any] = {"uri": row}
        if not isinstance(row, str) and row is not None:
            raise ValueError(f"row {number} is neither an address nor an object: {row!r}")
    else:
        cells = dict(row)
    address = cells.pop(_uri_column(list(cells)))
    if isinstance(address, Mapping):
        # What `datasets` writes for a video.
        address = address.get("path")
    if address is None or address == "":
        return ListRow(number, problem="names no video")
    if not isinstance(address, str):
        return ListRow(number, problem=f"an address must be text, not {address!r}")
    try:
        span = span_between(*(cells.pop(name, None) for name in SPAN_COLUMNS))
    except InputError as error:
        return ListRow(number, problem=str(error))
    labels = json.dumps(cells, sort_keys=True, default=str) if cells else ""
    return ListRow(number, address.strip(), span, labels)


def _uri_column(names: list[str]) -> str:
    for name in URI_COLUMNS:
        if name in names:
            return name
    raise KeyError(f"no column named {', '.join(URI_COLUMNS)} among {', '.join(names)}")
