"""Labels of videos as their makers publish them, read into one form."""

from jobs.labels.detect import load_labels
from jobs.labels.match import CachedVideo, Matching, match_labels, with_validation
from jobs.labels.values import Label, LabelSet, Split, TaskChoice, video_names

__all__ = [
    "CachedVideo",
    "Label",
    "LabelSet",
    "Matching",
    "Split",
    "TaskChoice",
    "load_labels",
    "match_labels",
    "video_names",
    "with_validation",
]
