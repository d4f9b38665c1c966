"""The commit log: one small record a shard, gathered into larger files as they grow. What is here is committed."""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunFolderError
from pipeline.failed_range import FailedRange
from pipeline.plan.units import Unit
from pipeline.shards.commit_record import ShardFile, ShardManifest
from pipeline.store import Store, Where, open_store

FOLDER = "commits"
GATHER_FROM = 512
"""Single records from which on they are gathered: a reader then asks for a few objects, not for 100,000."""
MOST_LOGS = 16
"""Gathered files from which on these become one."""
LOG = pa.schema([("shard_id", pa.string()), ("record", pa.string())])
READ_AGAIN = 5


class Manifests(Mapping[str, ShardManifest]):
    """Committed shards by id, in the order of ids; kept as text, in a quarter of the memory, until one is asked for."""

    def __init__(self, records: Mapping[str, str]) -> None:
        self._records = dict(sorted(records.items()))

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __contains__(self, shard_id: object) -> bool:
        return shard_id in self._records

    def __getitem__(self, shard_id: str) -> ShardManifest:
        return _of(json.loads(self._records[shard_id]))


def commit(store: Store, manifest: ShardManifest) -> None:
    """Make a shard exist."""
    store.put(f"{FOLDER}/{manifest.shard_id}.json", _text(manifest).encode())


def read_commit(store: Store, shard_id: str) -> ShardManifest | None:
    """The record of one shard; None where there is none that can be read."""
    try:
        return _of(json.loads(store.get(f"{FOLDER}/{shard_id}.json")))
    except (ValueError, KeyError, TypeError):
        return None
    except FileNotFoundError:
        pass
    for name in reversed(_listed(store)[0]):
        try:
            found = _records(store, name)
        except (FileNotFoundError, RunFolderError):
            continue
        if shard_id in found:
            return _of(json.loads(found[shard_id]))
    return None


def read_manifests(out: Where, *, broken: list[str] | None = None) -> Manifests:
    """Every committed shard of a run.

    Args:
        out: Where the run lives.
        broken: Takes the names of records that cannot be read; without it they are an error.

    Raises:
        RunFolderError: a record cannot be read.
    """
    store = open_store(out)
    for _ in range(READ_AGAIN):
        found: dict[str, str] = {}
        unread: list[str] = []
        logs, singles = _listed(store)
        try:
            # A single record is younger than a gathered one of the same shard.
            for name in [*logs, *singles]:
                try:
                    found |= _records(store, name)
                except RunFolderError:
                    if broken is None:
                        raise
                    unread.append(name)
        except FileNotFoundError:
            # Somebody gathered records between listing and reading.
            continue
        if broken is not None:
            broken += unread
        return Manifests(found)
    raise RunFolderError(f"{store.address}: the commit log changes faster than it can be read: try again")


def _listed(store: Store) -> tuple[list[str], list[str]]:
    names = [entry.name for entry in store.list(FOLDER)]
    return [n for n in names if n.endswith(".parquet")], [n for n in names if n.endswith(".json")]


def _records(store: Store, name: str) -> dict[str, str]:
    """The records of one file, single or gathered, by shard; each can be read."""
    data = store.get(name)
    try:
        if name.endswith(".json"):
            rows = [data.decode()]
        else:
            rows = pq.read_table(io.BytesIO(data)).column("record").to_pylist()
        return {_of(json.loads(row)).shard_id: row for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{store.address}/{name} is no record of commits ({error}): `vtm repair` makes its shards again"
        ) from error


def gather(store: Store) -> None:
    """Put many small records into one file. For the driver that holds the lease."""
    logs, singles = _listed(store)
    if len(singles) < GATHER_FROM:
        return
    merged = logs if len(logs) >= MOST_LOGS else []
    try:
        found = {shard_id: text for name in [*merged, *singles] for shard_id, text in _records(store, name).items()}
    except FileNotFoundError:
        # Somebody took the run over and gathers as well.
        return
    # Named by time, so that a later one of the same shard is read later.
    name = f"{FOLDER}/{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
    _put_log(store, name, dict(sorted(found.items())))
    for name in [*singles, *merged]:
        store.delete(name)


def uncommit(store: Store, shard_ids: Set[str]) -> None:
    """Make shards exist no more; their files go as well. For the driver that holds the lease."""
    manifests = read_manifests(store, broken=[])
    gone = [manifests[shard_id] for shard_id in sorted(shard_ids) if shard_id in manifests]
    logs, _ = _listed(store)
    for name in logs:
        found = _records(store, name)
        _put_log(store, name, {shard_id: text for shard_id, text in found.items() if shard_id not in shard_ids})
    for manifest in gone:
        store.delete(f"{FOLDER}/{manifest.shard_id}.json")
        for file in manifest.files:
            store.delete(file.name)


def _put_log(store: Store, name: str, records: Mapping[str, str]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table([list(records), list(records.values())], schema=LOG), buffer, compression="zstd")
    store.put(name, buffer.getvalue())


def _text(manifest: ShardManifest) -> str:
    return json.dumps(asdict(manifest), sort_keys=True)


def _of(data: dict[str, Any]) -> ShardManifest:
    data["files"] = tuple(ShardFile(**file) for file in data["files"])
    data["failures"] = tuple(FailedRange(**failed) for failed in data["failures"])
    data["clips"] = tuple(Unit(*unit) for unit in data["clips"])
    return ShardManifest(**data)
