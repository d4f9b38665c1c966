"""List files: rows that name videos, folders, globs or further lists, and say things of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import InputError

LIST_SUFFIXES = frozenset({".txt", ".csv", ".jsonl", ".parquet"})
URI_COLUMNS = ("uri", "path", "video", "url", "file", "file_name", "filename")


@dataclass(frozen=True, slots=True)
class ListRow:
    """One row of a list."""

    number: int
    """From 1, as people count; a header is not counted."""
    address: str | None
    """None where the row names nothing."""
    labels: str = ""
    """Its other columns, as a JSON object."""


def is_list(name: str) -> bool:
    """Whether a file is a list, by its name."""
    return PurePosixPath(name.split("?", 1)[0]).suffix.lower() in LIST_SUFFIXES


def rows_of_list(name: str, data: bytes) -> list[ListRow]:
    """The rows of a list file.

    Raises:
        InputError: it is no such list, or names no video.
    """
    suffix = PurePosixPath(name.split("?", 1)[0]).suffix.lower()
    try:
        rows = [ListRow(n, *row) for n, row in enumerate(_rows(data, suffix), 1)]
    except (ValueError, KeyError, IndexError, TypeError, csv.Error) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        raise InputError(f"{name}: is no {suffix[1:]} list of videos: {text}") from error
    if not rows:
        raise InputError(f"{name}: the list names no video")
    return rows


def _rows(data: bytes, suffix: str) -> Iterator[tuple[str | None, str]]:
    if suffix == ".parquet":
        from pipeline.shards.tables import read_rows

        for row in read_rows(data):
            yield _split(row)
        return
    text = data.decode("utf-8-sig")
    if suffix == ".csv":
        lines = (line for line in io.StringIO(text) if line.strip() and not line.startswith("#"))
        table = csv.DictReader(lines, strict=True, restkey="")
        _uri_column(list(table.fieldnames or []))
        for cells in table:
            if None in cells.values() or "" in cells:
                raise IndexError(
                    f"a row has another number of cells than the header: {','.join(map(str, cells.values()))}"
                )
            yield _split(dict(cells))
        return
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if suffix == ".txt":
            yield line, ""
        else:
            row = json.loads(line)
            yield (row, "") if isinstance(row, str) or row is None else _split(dict(row))


def _split(row: dict[str, Any]) -> tuple[str | None, str]:
    """A row to its address and the rest."""
    column = _uri_column(list(row))
    address = row.pop(column)
    labels = {name: value for name, value in row.items() if not isinstance(value, bytes)}
    text = json.dumps(labels, sort_keys=True, default=str) if labels else ""
    return (str(address).strip() or None) if address is not None else None, text


def _uri_column(names: list[str]) -> str:
    for name in URI_COLUMNS:
        if name in names:
            return name
    raise KeyError(f"no column named {', '.join(URI_COLUMNS)} among {', '.join(names)}")
