"""Breakfast: train.csv and test.csv of `file_name,duration,action,class_id`; there is no validation split."""

from __future__ import annotations

import csv
from pathlib import Path

from jobs.training.labels.values import Label, LabelSet, Split
from pipeline.errors import InputError

FILES: tuple[Split, ...] = ("train", "test")


def load_breakfast(folder: Path) -> LabelSet:
    """Read the ten activities.

    Args:
        folder: with both files.

    Raises:
        InputError: a file is missing.
    """
    labels: list[Label] = []
    names: dict[int, str] = {}
    for split in FILES:
        path = folder / f"{split}.csv"
        if not path.is_file():
            raise InputError(f"{path} is missing: Breakfast is a folder with train.csv and test.csv")
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                labels.append(Label(row["file_name"], int(row["class_id"]), split))
                names[int(row["class_id"])] = row["action"]
    classes = tuple(names.get(number, str(number)) for number in range(max(names) + 1))
    return LabelSet(task="classification", labels=tuple(labels), classes=classes)
