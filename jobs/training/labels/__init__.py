"""Labels of videos as their makers publish them, read into one form."""

from jobs.training.labels.detect import load_labels
from jobs.training.labels.match import CachedVideo, Matching, match_labels, with_validation
from jobs.training.labels.values import Label, LabelSet, Split, video_names

__all__ = [
    "CachedVideo",
    "Label",
    "LabelSet",
    "Matching",
    "Split",
    "load_labels",
    "match_labels",
    "video_names",
    "with_validation",
]
