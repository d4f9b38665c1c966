"""The rows of a benchmark, printed as a table or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobs.table import print_table

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Row], str]]
"""Header to the text of a row's cell. A row that lacks the figure has an empty cell."""


def show(
    rows: Sequence[Row],
    *,
    machine: str,
    as_json: bool,
    columns: Columns | None = None,
    title: str = "",
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print what was measured.

    Args:
        rows: one a measurement.
        machine: what they were measured on.
        as_json: one JSON object instead of a table.
        columns: of the table; without any, a line a row names all that is in it.
        title: what all rows have in common, above the table.
        more: what the JSON object holds beside machine and rows.
    """
    if as_json:
        print(json.dumps({"machine": machine, **(more or {}), "rows": rows}))
        return
    print(f"{title}: {machine}" if title else machine)
    if columns is None:
        for row in rows:
            print(", ".join(f"{name} {_short(value)}" for name, value in row.items()))
    else:
        print_columns(rows, columns)


def print_columns(rows: Sequence[Row], columns: Columns) -> None:
    """A table of the rows' figures."""
    print_table(list(columns), [[_cell(text_of, row) for text_of in columns.values()] for row in rows])


def _cell(text_of: Callable[[Row], str], row: Row) -> str:
    try:
        return text_of(row)
    except KeyError:
        return ""


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
