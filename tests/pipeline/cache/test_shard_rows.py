"""Rows of one shard file."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipeline.cache.shard_rows import Wanted, open_rows
from pipeline.shards.manifest import write_shard
from pipeline.store.disk import DiskStore
from tests.pipeline.clips_made import RUN, made_clip


def test_a_column_that_a_file_lacks_is_none(tmp_path: Path) -> None:
    write_shard(tmp_path, "a" * 16, [made_clip(i) for i in range(3)], [], RUN, ("parquet",))
    (path,) = (tmp_path / "shards").glob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["weights_bytes", "embedding"]), path)
    rows = open_rows(DiskStore(tmp_path), f"shards/{path.name}", [1], Wanted(("sizes", "weights", "embedding")), None)
    clip = rows.clip(1)
    assert clip.sizes.tolist() == made_clip(1).sizes.tolist()
    assert (clip.weights, clip.embedding) == (None, None)
    rows.close()
