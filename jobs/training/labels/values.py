"""One form for all label files: which video, what it is worth, which split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from vtm.network import Task

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of one video."""

    video: str
    """As the label file names it: an id, or a file name without its suffix."""
    target: float
    """A class number, or a value."""
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """All labels of one task."""

    task: Task
    labels: tuple[Label, ...]
    classes: tuple[str, ...] = ()
    """Names by class number; empty for a regression."""

    @property
    def outputs(self) -> int:
        """Outputs of a network for it: classes, or one value."""
        return len(self.classes) if self.task == "classification" else 1

    def counts(self) -> dict[Split, int]:
        """Labels in each split."""
        found = Counter(label.split for label in self.labels)
        return {split: found[split] for split in SPLITS}


def video_names(video_id: str, uri: str) -> tuple[str, ...]:
    """The names by which a label file may call a cached video.

    Its id, its file name with and without suffix, and the last three parts of its path joined by hyphens, as Breakfast
    names `P47/cam01/P47_cereals.avi`.
    """
    path = PurePosixPath(uri)
    stem = path.with_suffix("")
    return video_id, path.name, stem.name, "-".join(stem.parts[-3:])
