"""Which adapter reads a label file or folder."""

from __future__ import annotations

from pathlib import Path

from jobs.labels.breakfast import load_breakfast
from jobs.labels.coin import load_coin
from jobs.labels.lvu import load_lvu
from jobs.labels.plain import labels_of_rows, load_csv
from jobs.labels.values import LabelSet
from pipeline.errors import InputError
from pipeline.shards.tables import read_table
from pipeline.store import open_store


def load_labels(path: Path) -> LabelSet:
    """Read a folder of LVU 1.0 (one task) or Breakfast, a COIN JSON, or a plain csv or parquet table.

    Raises:
        InputError: it is none of them.
    """
    if path.is_dir():
        if (path / "val.csv").is_file():
            return load_lvu(path)
        return load_breakfast(path)
    readers = {".json": load_coin, ".csv": load_csv, ".parquet": _load_parquet}
    if not path.is_file() or path.suffix not in readers:
        raise InputError(
            f"{path} holds no labels: name a task folder of LVU 1.0, the folder of Breakfast, COIN's .json, "
            "or a .csv or .parquet of video_id,label[,split]"
        )
    return readers[path.suffix](path)


def _load_parquet(path: Path) -> LabelSet:
    return labels_of_rows(read_table(open_store(path.parent), path.name), str(path))
