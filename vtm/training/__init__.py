"""Training the paper's network with labels, or its scorer without."""

from vtm.training.batches import ClipBatch, EpochBatches
from vtm.training.loop import EpochReport, Task, train
from vtm.training.settings import TrainingError, TrainingSettings
from vtm.training.supervised import VideoPredictions, figures, labelled_objective, predict_videos

__all__ = [
    "ClipBatch",
    "EpochBatches",
    "EpochReport",
    "Task",
    "TrainingError",
    "TrainingSettings",
    "VideoPredictions",
    "figures",
    "labelled_objective",
    "predict_videos",
    "train",
]
