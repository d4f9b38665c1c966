"""A plain table `video_id,label[,split]`, csv or parquet: class names, or the values of a regression.

Labels that all read as numbers may be either, so they need a word which. Without a split column a video's name decides:
one in ten for validation, two in ten for test, the same on every machine.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.training.labels.values import SPLITS, Label, LabelSet, Split
from pipeline.errors import InputError
from vtm.network import Task


def load_csv(path: Path, task: Task | None = None) -> LabelSet:
    """Read a comma-separated table with a header; `task` as in `labels_of_rows`.

    Raises:
        InputError: as `labels_of_rows`.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        return labels_of_rows(list(csv.DictReader(file)), str(path), task)


def labels_of_rows(rows: Sequence[Mapping[str, object]], name: str, task: Task | None = None) -> LabelSet:
    """Make a label set of rows with `video_id`, `label` and perhaps `split`.

    Args:
        rows: of a table.
        name: of the table, for messages.
        task: what the labels are; needed where all of them read as numbers.

    Raises:
        InputError: a column is missing, a row is incomplete, a split has another name, or it is not said what numbers
            mean.
    """
    if not rows or {"video_id", "label"} - set(rows[0]):
        columns = ", ".join(rows[0]) if rows else "nothing"
        raise InputError(f"{name} has {columns}: expected rows of video_id,label and perhaps split")
    texts = [str(row["label"]) for row in rows]
    videos = [str(row["video_id"]) for row in rows]
    if missing := [i for i, row in enumerate(rows) if row["label"] in (None, "") or row["video_id"] in (None, "")]:
        raise InputError(f"{name}: row {missing[0] + 1} has no video_id or no label")
    splits = [_split(row.get("split"), video, name) for row, video in zip(rows, videos, strict=True)]
    values = None if task == "classification" else _values(texts)
    if values is not None and task is None:
        raise InputError(
            f"{name}: all labels are numbers such as {texts[0]}, which may be classes or values: "
            "say --task classification or --task regression"
        )
    if values is None and task == "regression":
        odd = next(text for text in texts if _value(text) is None)
        raise InputError(f"{name}: the label {odd!r} is not a finite number, as --task regression needs")
    if values is not None:
        labels = tuple(Label(*row) for row in zip(videos, values, splits, strict=True))
        return LabelSet(task="regression", labels=labels)
    classes = tuple(sorted(set(texts)))
    number = {text: index for index, text in enumerate(classes)}
    labels = tuple(Label(video, number[text], split) for video, text, split in zip(videos, texts, splits, strict=True))
    return LabelSet(task="classification", labels=labels, classes=classes)


def _values(texts: Sequence[str]) -> list[float] | None:
    """All labels as numbers, or None where one of them is none."""
    values = [_value(text) for text in texts]
    found = [value for value in values if value is not None]
    return found if len(found) == len(values) else None


def _value(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _split(given: object, video: str, name: str) -> Split:
    if given is None:
        place = int.from_bytes(hashlib.sha256(video.encode()).digest()[:8], "big") % 10
        return "val" if place == 0 else "test" if place < 3 else "train"
    for split in SPLITS:
        if given == split:
            return split
    raise InputError(f"{name}: {video} is in split {given!r}, expected one of {', '.join(SPLITS)}")
