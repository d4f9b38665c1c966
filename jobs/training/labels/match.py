"""Labels and cached videos -> which video has which label, and what has no counterpart."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.training.labels.values import Label, LabelSet, video_names
from pipeline.errors import InputError

VALIDATION_SHARE = 0.1
"""Of the training videos, set aside where labels have no validation split."""


@dataclass(frozen=True, slots=True)
class CachedVideo:
    """A video of a token cache."""

    video_id: str
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Labels by video, and what is left over on either side."""

    by_video: Mapping[str, Label]
    """By video id; splits are those that training goes by."""
    missing: tuple[Label, ...]
    """Labels whose video is in no cache."""
    unlabelled: tuple[CachedVideo, ...]
    """Cached videos without a label."""

    def labels_sha256(self, classes: Sequence[str]) -> str:
        """Hash of which video has which label, classes by name."""
        return _hash(
            (video, classes[int(label.target)] if classes else label.target) for video, label in self.by_video.items()
        )

    def split_sha256(self) -> str:
        """Hash of which video is in which split."""
        return _hash((video, label.split) for video, label in self.by_video.items())


def match_labels(labels: LabelSet, videos: Iterable[CachedVideo]) -> Matching:
    """Give each cached video its label.

    Args:
        labels: name a video by its id, its file name, or as Breakfast does.
        videos: of the caches; a video of several caches is one.

    Raises:
        InputError: a label names several videos, or several labels name one and differ.
    """
    by_name: Mapping[str, list[Label]] = defaultdict(list)
    for label in labels.labels:
        by_name[label.video].append(label)
    known = {video.video_id: video for video in videos}
    named: dict[str, list[CachedVideo]] = defaultdict(list)
    by_video: dict[str, Label] = {}
    unlabelled = []
    for video in known.values():
        names = [name for name in dict.fromkeys(video_names(video.video_id, video.uri)) if name in by_name]
        for name in names:
            named[name].append(video)
        found = [label for name in names for label in by_name[name]]
        if any((label.target, label.split) != (found[0].target, found[0].split) for label in found):
            shown = ", ".join(f"{label.video} {_worth(label, labels)} in {label.split}" for label in found[:4])
            raise InputError(f"the labels contradict each other about {video.uri}: {shown}; keep one of them")
        if found:
            by_video[video.video_id] = found[0]
        else:
            unlabelled.append(video)
    for name, several in named.items():
        if len(several) > 1:
            shown = ", ".join(f"{video.video_id} ({video.uri})" for video in several[:3])
            raise InputError(f"the label {name} names {len(several)} cached videos, {shown}: label them by video id")
    missing = tuple(label for name, found in by_name.items() if name not in named for label in found)
    return Matching(by_video=dict(sorted(by_video.items())), missing=missing, unlabelled=tuple(unlabelled))


def with_validation(matching: Matching) -> tuple[Matching, int]:
    """A validation split where the labels have none: a tenth of the training videos, by the hash of their ids.

    Returns:
        The matching, and how many videos were set aside: 0 where labels bring their own.

    Raises:
        InputError: a single video is there to train on.
    """
    if any(label.split == "val" for label in matching.by_video.values()):
        return matching, 0
    if any(label.split == "val" for label in matching.missing):
        raise InputError("none of the labels' validation videos is in a cache: extract some of them, or all")
    training = sorted((video for video, label in matching.by_video.items() if label.split == "train"), key=_place)
    if len(training) == 1:
        raise InputError("one labelled training video leaves none to validate on: give two at least")
    aside = set(training[: max(1, round(VALIDATION_SHARE * len(training)))] if training else ())
    by_video = {
        video: replace(label, split="val") if video in aside else label for video, label in matching.by_video.items()
    }
    return replace(matching, by_video=by_video), len(aside)


def _place(video_id: str) -> bytes:
    return hashlib.sha256(video_id.encode()).digest()


def _worth(label: Label, labels: LabelSet) -> str:
    return labels.classes[int(label.target)] if labels.classes else str(label.target)


def _hash(pairs: Iterable[tuple[str, object]]) -> str:
    return hashlib.sha256("\n".join(f"{video}\t{value}" for video, value in pairs).encode()).hexdigest()
