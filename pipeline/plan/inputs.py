"""What the user named, as it was listed: kept, so that whether anything is missing can be said from the run alone."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.shards.tables import read_tables, write_table
from pipeline.store import Store
from pipeline.values import Input, Named

FOLDER = "plan/inputs"
INPUTS = pa.schema(
    [
        ("named", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("stamp", pa.string()),
        ("labels", pa.string()),
    ]
)


def store_inputs(store: Store, named: Sequence[Named]) -> None:
    """Remember what was named; the same again is remembered once."""
    if not named:
        return
    sha256 = hashlib.sha256()
    for item in named:
        sha256.update(json.dumps(_row(item), sort_keys=True).encode())
    digest = sha256.hexdigest()[:16]
    before = [entry.name for entry in store.list(FOLDER)]
    if before and before[-1].endswith(f"{digest}.parquet"):
        return
    write_table(store, f"{FOLDER}/{time.time_ns():020d}-{digest}.parquet", map(_row, named), INPUTS)


def read_inputs(store: Store, *, broken: list[str] | None = None) -> tuple[Named, ...]:
    """Everything that was ever named for a run; of an address that was named again, as it was listed last."""
    return _last(read_tables(store, FOLDER, INPUTS, broken))


def labelled_inputs(store: Store, *, broken: list[str]) -> tuple[Named, ...]:
    """Of what was named, that of which a list says something."""
    tables = read_tables(store, FOLDER, INPUTS, broken)
    return _last(table.filter(pc.not_equal(table.column("labels"), "")) for table in tables)


def _last(tables: Iterable[pa.Table]) -> tuple[Named, ...]:
    found: dict[tuple[str, str, str], Named] = {}
    said: dict[str, str] = {}
    for table in tables:
        for row in table.to_pylist():
            row["named"] = said.setdefault(row["named"], row["named"])
            named = _of(row)
            found[named.named, named.input.uri, named.labels] = named
    return tuple(found.values())


def _row(item: Named) -> dict[str, Any]:
    source = item.input
    return {
        "named": item.named,
        "uri": source.uri,
        "size_bytes": source.size_bytes,
        "stamp": source.stamp,
        "labels": item.labels,
    }


def _of(row: dict[str, Any]) -> Named:
    return Named(row["named"], Input(uri=row["uri"], size_bytes=row["size_bytes"], stamp=row["stamp"]), row["labels"])
