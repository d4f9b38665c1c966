"""Formats that committed shards lack, made from the tokens that they have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.counted import counted
from pipeline.shards.manifest import add_formats
from pipeline.shards.run_folder import RunState

THREADS = 4


def copy_formats(
    state: RunState, shard_ids: Sequence[str], formats: Sequence[str], note: Callable[[str], None]
) -> list[str]:
    """Write the files that shards lack. Returns those whose tokens cannot be read after all: to be extracted again.

    Raises:
        OSError: a file cannot be written.
    """
    if not shard_ids:
        return []
    note(f"missing files are made for {counted(len(shard_ids), 'shard')}, from the tokens that are committed")

    def make(shard_id: str) -> str | None:
        try:
            add_formats(state.store, state.manifests[shard_id], state.run, formats)
        except (ValueError, KeyError):
            return shard_id
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        return [shard_id for shard_id in pool.map(make, shard_ids) if shard_id is not None]
