"""Training the paper's network with labels."""

from vtm.errors import RankError, TrainingError
from vtm.training.batches import ClipBatch, EpochBatches
from vtm.training.checkpoint import Progress
from vtm.training.loop import EpochReport, TrainingTask, train
from vtm.training.ranks import ALONE, Ranks
from vtm.training.settings import Precision, TrainingSettings
from vtm.training.supervised import VideoPredictions, figures, labelled_objective, predict_videos

__all__ = [
    "ALONE",
    "ClipBatch",
    "EpochBatches",
    "EpochReport",
    "Precision",
    "Progress",
    "RankError",
    "Ranks",
    "TrainingError",
    "TrainingSettings",
    "TrainingTask",
    "VideoPredictions",
    "figures",
    "labelled_objective",
    "predict_videos",
    "train",
]
