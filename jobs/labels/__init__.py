"""Labels of videos as their makers publish them, read into one form."""

from jobs.labels.detect import load_labels
from jobs.labels.values import Label, LabelSet, Split, video_names

__all__ = ["Label", "LabelSet", "Split", "load_labels", "video_names"]
