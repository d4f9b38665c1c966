"""The list of videos that a training run leaves: which were matched with which label, and which with none."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from jobs.training.labels.match import Matching
from jobs.training.labels.values import Label, LabelSet

COLUMNS = ("video_id", "uri", "label_name", "label", "split", "clips", "matched")


class HasVideo(Protocol):
    """A clip of a cache."""

    @property
    def video_id(self) -> str:
        """Of its video."""

    @property
    def uri(self) -> str:
        """Of its video."""


def write_matching(path: Path, matching: Matching, labels: LabelSet, clips: Iterable[HasVideo]) -> None:
    """Write one row for each labelled video, each label without a video, and each video without a label."""
    kept = list(clips)
    counts = Counter(clip.video_id for clip in kept)
    uris = {clip.video_id: clip.uri for clip in kept}
    rows: list[tuple[object, ...]] = [
        (video, uris[video], label.video, _worth(label, labels), label.split, counts[video], "yes")
        for video, label in matching.by_video.items()
    ]
    rows += [("", "", label.video, _worth(label, labels), label.split, 0, "no video") for label in matching.missing]
    rows += [(v.video_id, v.uri, "", "", "", counts[v.video_id], "no label") for v in matching.unlabelled]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def videos_trained_on(path: Path) -> set[str]:
    """Ids of the videos that a training run learned from or chose its epoch by; none where it left no list."""
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8", newline="") as file:
        return {row["video_id"] for row in csv.DictReader(file) if row["split"] in ("train", "val") and row["video_id"]}


def _worth(label: Label, labels: LabelSet) -> str:
    return labels.classes[int(label.target)] if labels.classes else str(label.target)
