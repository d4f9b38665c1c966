"""Which adapter reads a label file or folder."""

from __future__ import annotations

from pathlib import Path

from jobs.training.labels.breakfast import load_breakfast
from jobs.training.labels.coin import load_coin
from jobs.training.labels.lvu import load_lvu
from jobs.training.labels.plain import labels_of_rows, load_csv
from jobs.training.labels.values import LabelSet
from pipeline.errors import InputError
from pipeline.shards.tables import read_table
from pipeline.store import open_store
from vtm.network import Task


def load_labels(path: Path, task: Task | None = None) -> LabelSet:
    """Read a folder of LVU 1.0 (one task) or Breakfast, a COIN JSON, or a plain csv or parquet table.

    Args:
        path: of the file or folder.
        task: what the labels of a plain table are; the others say so themselves.

    Raises:
        InputError: it is none of them, or of another task.
    """
    labels = _read(path, task)
    if task is not None and labels.task != task:
        raise InputError(f"{path} is a {labels.task}, --task says {task}")
    return labels


def _read(path: Path, task: Task | None) -> LabelSet:
    if path.is_dir():
        return _read_folder(path)
    if path.is_file() and path.suffix == ".json":
        return load_coin(path)
    if path.is_file() and path.suffix == ".csv":
        return load_csv(path, task)
    if path.is_file() and path.suffix == ".parquet":
        return labels_of_rows(read_table(open_store(path.parent), path.name), str(path), task)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder of labels")
    raise InputError(
        f"{path} holds no labels: name a task folder of LVU 1.0, the folder of Breakfast, COIN's .json, "
        "or a .csv or .parquet of video_id,label[,split]"
    )


def _read_folder(path: Path) -> LabelSet:
    name, load = ("LVU 1.0", load_lvu) if (path / "val.csv").is_file() else ("Breakfast", load_breakfast)
    try:
        return load(path)
    except InputError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is not a folder of {name} ({type(error).__name__}: {error}): give labels of your own as one .csv "
            "or .parquet of video_id,label[,split]"
        ) from error
