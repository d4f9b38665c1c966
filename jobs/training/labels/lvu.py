"""LVU 1.0: one folder a task, with train.csv, val.csv and test.csv separated by single spaces."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

from jobs.training.labels.values import SPLITS, Label, LabelSet, Split
from pipeline.errors import InputError

LIKE_MEAN = 9.138
"""Mean of 10 · likes / (likes + dislikes), taken off in the published figures."""
VIEW_MEAN = 11.764
"""Mean of the natural logarithm of the views, taken off in the published figures."""

Row = dict[str, str]


def load_lvu(folder: Path) -> LabelSet:
    """Read one task.

    Args:
        folder: of the task, such as `lvu_1.0/scene`.

    Raises:
        InputError: a split is missing, or its columns are none of LVU's.
    """
    rows: list[tuple[Split, Row]] = [(split, row) for split in SPLITS for row in _read(folder / f"{split}.csv")]
    columns = set(rows[0][1])
    if "like_count" in columns:
        return LabelSet(task="regression", labels=_labels(rows, _like_ratio))
    if "view_count" in columns:
        return LabelSet(task="regression", labels=_labels(rows, _log_views))
    if "class_id" not in columns:
        raise InputError(
            f"{folder} has columns {', '.join(sorted(columns))}: expected class_id, like_count or view_count"
        )
    names = {int(row["class_id"]): row["class_name"] for _, row in rows}
    classes = tuple(names.get(number, str(number)) for number in range(max(names) + 1))
    return LabelSet(task="classification", labels=_labels(rows, lambda row: int(row["class_id"])), classes=classes)


def _labels(rows: list[tuple[Split, Row]], target: Callable[[Row], float]) -> tuple[Label, ...]:
    return tuple(Label(row["youtube_id"], target(row), split) for split, row in rows)


def _like_ratio(row: Row) -> float:
    likes, dislikes = int(row["like_count"]), int(row["dislike_count"])
    return 10 * likes / (likes + dislikes) - LIKE_MEAN


def _log_views(row: Row) -> float:
    return math.log(int(row["view_count"])) - VIEW_MEAN


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        raise InputError(f"{path} is missing: a task of LVU 1.0 is a folder with train.csv, val.csv and test.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=" "))
