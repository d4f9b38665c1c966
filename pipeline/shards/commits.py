"""The commit log: one small record a shard, gathered into larger files as they grow. What is here is committed."""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import Sequence, Set
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunFolderError
from pipeline.plan.units import Unit
from pipeline.store import Store, Where, open_store
from pipeline.values import FailedRange, ShardFile, ShardManifest

FOLDER = "commits"
GATHER_FROM = 512
"""Single records from which on they are gathered: a reader then asks for a few objects, not for 100,000."""
MOST_LOGS = 16
"""Gathered files from which on these become one."""
LOG = pa.schema([("shard_id", pa.string()), ("record", pa.string())])
READ_AGAIN = 5


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
            found = [manifest for manifest in _read(store, name) if manifest.shard_id == shard_id]
        except (FileNotFoundError, RunFolderError):
            continue
        if found:
            return found[0]
    return None


def read_manifests(out: Where, *, broken: list[str] | None = None) -> dict[str, ShardManifest]:
    """Every committed shard of a run, by id, in the order of ids.

    Args:
        out: Where the run lives.
        broken: Takes the names of records that cannot be read; without it they are an error.

    Raises:
        RunFolderError: a record cannot be read.
    """
    store = open_store(out)
    for _ in range(READ_AGAIN):
        found: dict[str, ShardManifest] = {}
        unread: list[str] = []
        logs, singles = _listed(store)
        try:
            # A single record is younger than a gathered one of the same shard.
            for name in [*logs, *singles]:
                try:
                    found |= {m.shard_id: m for m in _read(store, name)}
                except RunFolderError:
                    if broken is None:
                        raise
                    unread.append(name)
        except FileNotFoundError:
            # Somebody gathered records between listing and reading.
            continue
        if broken is not None:
            broken += unread
        return dict(sorted(found.items()))
    raise RunFolderError(f"{store.address}: the commit log changes faster than it can be read: try again")


def _listed(store: Store) -> tuple[list[str], list[str]]:
    names = [entry.name for entry in store.list(FOLDER)]
    return [n for n in names if n.endswith(".parquet")], [n for n in names if n.endswith(".json")]


def _read(store: Store, name: str) -> list[ShardManifest]:
    """The records of one file, single or gathered."""
    data = store.get(name)
    try:
        rows = [data] if name.endswith(".json") else pq.read_table(io.BytesIO(data)).column("record").to_pylist()
        return [_of(json.loads(row)) for row in rows]
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
        found = {m.shard_id: m for name in [*merged, *singles] for m in _read(store, name)}
    except FileNotFoundError:
        # Somebody took the run over and gathers as well.
        return
    # Named by time, so that a later one of the same shard is read later.
    name = f"{FOLDER}/{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
    _put_log(store, name, [manifest for _, manifest in sorted(found.items())])
    for name in [*singles, *merged]:
        store.delete(name)


def uncommit(store: Store, shard_ids: Set[str]) -> None:
    """Make shards exist no more; their files go as well. For the driver that holds the lease."""
    manifests = read_manifests(store, broken=[])
    gone = [manifests[shard_id] for shard_id in sorted(shard_ids) if shard_id in manifests]
    logs, _ = _listed(store)
    for name in logs:
        kept = [manifest for manifest in _read(store, name) if manifest.shard_id not in shard_ids]
        _put_log(store, name, kept)
    for manifest in gone:
        store.delete(f"{FOLDER}/{manifest.shard_id}.json")
        for file in manifest.files:
            store.delete(file.name)


def _put_log(store: Store, name: str, manifests: Sequence[ShardManifest]) -> None:
    rows = [{"shard_id": manifest.shard_id, "record": _text(manifest)} for manifest in manifests]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=LOG), buffer, compression="zstd")
    store.put(name, buffer.getvalue())


def _text(manifest: ShardManifest) -> str:
    return json.dumps(asdict(manifest), sort_keys=True)


def _of(data: dict[str, Any]) -> ShardManifest:
    data["files"] = tuple(ShardFile(**file) for file in data["files"])
    data["failures"] = tuple(FailedRange(**failed) for failed in data["failures"])
    data["clips"] = tuple(Unit(*unit) for unit in data["clips"])
    return ShardManifest(**data)
