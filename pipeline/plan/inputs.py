"""What the user named, as it was listed: kept, so that whether anything is missing can be said from the run alone."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input, Named
from pipeline.plan.blocks import Blocks
from pipeline.shards.tables import BATCH_ROWS, put_tables, read_tables
from pipeline.store import Store

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


class Listing:
    """What the user named, as columns: a million addresses take a tenth of a gigabyte.

    Args:
        items: As they are found: inputs, and what cannot be found.
    """

    def __init__(self, items: Iterable[Named | FailedRange] = ()) -> None:
        self._failed: list[FailedRange] = []
        self._rows = Blocks(_tables(_only_named(items, self._failed)), INPUTS)

    def __len__(self) -> int:
        return len(self._rows)

    def once(self) -> Iterator[Input | FailedRange]:
        """What is to be extracted, each address once, then what cannot be found."""
        coded = pc.dictionary_encode(self._rows.column("uri")).combine_chunks()
        _, first_rows = np.unique(coded.indices.to_numpy(), return_index=True)
        del coded
        for table in self._rows.take(np.sort(first_rows)):
            yield from (_of(row).input for row in table.to_pylist())
        found = self._found(failed.uri for failed in self._failed)
        yield from {failed.uri: failed for failed in reversed(self._failed) if failed.uri not in found}.values()

    def naming(self, uris: Iterable[str]) -> set[str]:
        """Those of the addresses that are named, found or not."""
        wanted = set(uris)
        return self._found(wanted) | wanted.intersection(failed.uri for failed in self._failed)

    def _found(self, uris: Iterable[str]) -> set[str]:
        wanted = pa.array(set(uris), pa.string())
        found: set[str] = set()
        for table in self._rows.batches(["uri"]) if len(wanted) else ():
            found.update(wanted.filter(pc.is_in(wanted, value_set=table.column("uri").combine_chunks())).to_pylist())
        return found

    @property
    def digest(self) -> str:
        """16 hex digits: equal for the same inputs in the same order."""
        sha256 = hashlib.sha256()
        for table in self._rows.batches():
            for row in table.to_pylist():
                sha256.update(repr(tuple(row.values())).encode(errors="surrogateescape"))
        return sha256.hexdigest()[:16]

    def batches(self) -> Iterator[pa.Table]:
        """A row an input, in the order in which they were found."""
        return self._rows.batches()


def _tables(named: Iterator[Named]) -> Iterator[pa.Table]:
    while rows := [_row(item) for item in islice(named, BATCH_ROWS)]:
        yield pa.Table.from_pylist(rows, schema=INPUTS)


def _only_named(items: Iterable[Named | FailedRange], failed: list[FailedRange]) -> Iterator[Named]:
    for item in items:
        if isinstance(item, Named):
            yield item
        else:
            failed.append(item)


def store_inputs(store: Store, listing: Listing) -> None:
    """Remember what was named; the same again is remembered once."""
    if not len(listing):
        return
    digest = listing.digest
    before = [entry.name for entry in store.list(FOLDER)]
    if before and before[-1].endswith(f"{digest}.parquet"):
        return
    put_tables(store, f"{FOLDER}/{time.time_ns():020d}-{digest}.parquet", listing.batches(), INPUTS)


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
