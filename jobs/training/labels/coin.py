"""COIN: one JSON file, a record for each video with its class and its subset; there is no validation split."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.training.labels.values import Label, LabelSet, Split
from pipeline.errors import InputError

SPLIT_OF_SUBSET: dict[str, Split] = {"training": "train", "testing": "test"}


def load_coin(path: Path) -> LabelSet:
    """Read the task of each video; classes are numbered in order of name.

    Raises:
        InputError: the file is no COIN database, or a record lacks its class or subset.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["database"]
        found = [(video, record["class"], SPLIT_OF_SUBSET[record["subset"]]) for video, record in records.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no COIN file: expected {{database: {{id: {{class, subset: training or testing}}}}}} ({error})"
        ) from error
    classes = tuple(sorted({name for _, name, _ in found}))
    number = {name: index for index, name in enumerate(classes)}
    labels = tuple(Label(video, number[name], split) for video, name, split in found)
    return LabelSet(task="classification", labels=labels, classes=classes)
