"""Tables of a run folder that an earlier release wrote."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import RunFolderError
from pipeline.shards.tables import read_tables, with_all_columns, write_table
from pipeline.store.disk import DiskStore

NOW = pa.schema([("video_id", pa.string()), ("has_audio", pa.bool_()), ("clips", pa.int32())])
BEFORE = pa.schema([("video_id", pa.string()), ("clips", pa.int32())])


def test_a_column_that_came_later_is_null(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    write_table(store, "plan/1.parquet", [{"video_id": "a", "clips": 7}], BEFORE)
    write_table(store, "plan/2.parquet", [{"video_id": "b", "clips": 8, "has_audio": True}], NOW)
    rows = [row for table in read_tables(store, "plan", NOW) for row in table.to_pylist()]
    assert rows == [
        {"video_id": "a", "has_audio": None, "clips": 7},
        {"video_id": "b", "has_audio": True, "clips": 8},
    ]


@pytest.mark.parametrize(
    "other",
    [
        pa.table({"video_id": ["a"], "clips": pa.array([1], pa.int64())}),
        pa.table({"video_id": ["a"], "colour": ["red"]}),
        pa.table({"video_id": ["a"], "has_audio": [True]}),
    ],
)
def test_columns_of_another_kind_are_refused(other: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its columns are others"):
        with_all_columns(other, NOW)
    store = DiskStore(tmp_path)
    write_table(store, "plan/1.parquet", other.to_pylist(), other.schema)
    with pytest.raises(RunFolderError, match="is no table"):
        list(read_tables(store, "plan", NOW))
    broken: list[str] = []
    assert list(read_tables(store, "plan", NOW, broken)) == []
    assert broken == ["plan/1.parquet"]
