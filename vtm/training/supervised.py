"""Learning from labels: the loss of the paper's network and how its predictions are scored.

Letters: B clips, V videos, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vtm.errors import TrainingError
from vtm.network.config import Task
from vtm.network.network import NetworkOutput, VideoTokenMerging
from vtm.training.batches import ClipBatch
from vtm.training.ranks import ALONE, Ranks


def prediction_loss(task: Task, prediction_BK: Tensor, target_B: Tensor) -> Tensor:
    """Cross-entropy of classes, or the mean squared error of values.

    Args:
        task: of the network.
        prediction_BK: (B, K) logits, or (B, 1) values.
        target_B: (B,) int64 classes, or (B,) values of any dtype.

    Returns:
        A scalar, the mean over the batch.
    """
    if task == "classification":
        return F.cross_entropy(prediction_BK, target_B)
    return F.mse_loss(prediction_BK.squeeze(1), target_B.to(prediction_BK.dtype))


def network_loss(output: NetworkOutput, target_B: Tensor, task: Task, auxiliary_weight: float = 1.0) -> Tensor:
    """The main path's loss plus that of the auxiliary predictions, which alone train the scorers (section 3.4).

    Args:
        output: of the network in training mode.
        target_B: (B,) int64 classes, or (B,) float values.
        task: of the network.
        auxiliary_weight: what each auxiliary loss counts; the paper gives none.

    Returns:
        A scalar.
    """
    loss = prediction_loss(task, output.prediction, target_B)
    for prediction_BK in output.auxiliary:
        loss = loss + auxiliary_weight * prediction_loss(task, prediction_BK, target_B)
    return loss


def labelled_objective(auxiliary_weight: float = 1.0) -> Callable[[VideoTokenMerging, ClipBatch], Tensor]:
    """The objective of a training run with labels: `network_loss`.

    Args:
        auxiliary_weight: what the auxiliary loss counts, 0 or more.

    Returns:
        A function of network and batch, which raises a TrainingError for a batch without labels.

    Raises:
        TrainingError: the weight is negative or not finite.
    """
    if not 0 <= auxiliary_weight < math.inf:
        raise TrainingError(f"auxiliary_weight is 0 or more and finite, got {auxiliary_weight}")

    def objective(network: VideoTokenMerging, batch: ClipBatch) -> Tensor:
        if batch.target is None:
            raise TrainingError("a batch without labels came to training with labels")
        output = network(batch.patches, batch.grid, seeds=batch.seeds, motion=batch.motion)
        return network_loss(output, batch.target, network.config.task, auxiliary_weight)

    return objective


@dataclass(frozen=True, eq=False)
class VideoPredictions:
    """One prediction a video."""

    videos: tuple[str, ...]
    prediction: Tensor
    """(V, K) float64: mean over the video's clips, of class probabilities or of values."""
    clips: Tensor
    """(V,) int64 clips of each video that were averaged."""
    target: Tensor | None = None
    """(V,), where the clips are labelled."""


@torch.no_grad()
def predict_videos(network: VideoTokenMerging, batches: Iterable[ClipBatch], ranks: Ranks = ALONE) -> VideoPredictions:
    """Predict every clip and average over each video's clips, as long videos are scored on LVU.

    Args:
        network: in evaluation mode.
        batches: all labelled or none; a video's clips may be in any of them. Of several processes, each has its `part`.
        ranks: the processes that predict together; each of them returns the whole.

    Returns:
        One prediction a video, in the order in which videos came.

    Raises:
        TrainingError: no clip at all.
        RankError: another process is gone.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    targets: dict[str, Tensor] = {}
    for videos, prediction_BK, target_B in ranks.in_order(_predict(network, batch) for batch in batches):
        for video, prediction_K in zip(videos, prediction_BK, strict=True):
            sums[video] = sums[video] + prediction_K if video in sums else prediction_K
            counts[video] = counts.get(video, 0) + 1
        if target_B is not None:
            targets |= dict(zip(videos, target_B, strict=True))
    if not sums:
        raise TrainingError("there is no clip to predict: check the split and how labels name their videos")
    means = torch.stack([sums[video] / counts[video] for video in sums])
    target_V = torch.stack([targets[video] for video in sums]) if targets else None
    return VideoPredictions(tuple(sums), means, torch.tensor(list(counts.values())), target_V)


def _predict(network: VideoTokenMerging, batch: ClipBatch) -> tuple[tuple[str, ...], Tensor, Tensor | None]:
    """The video, the (B, K) float64 prediction on the CPU and the target of each clip."""
    moved = batch.to(next(network.parameters()).device)
    prediction_BK = network(moved.patches, batch.grid, seeds=batch.seeds, motion=moved.motion).prediction.double()
    if network.config.task == "classification":
        prediction_BK = prediction_BK.softmax(dim=1)
    return batch.videos, prediction_BK.cpu(), batch.target


def figures(task: Task, predictions: VideoPredictions) -> Mapping[str, float]:
    """How good predictions are, over videos.

    Args:
        task: of the network.
        predictions: of labelled videos.

    Returns:
        `accuracy` in [0, 1] and `log_loss` of a classification, `mse` of a regression.

    Raises:
        TrainingError: the videos have no labels.
    """
    if predictions.target is None:
        raise TrainingError("videos without labels cannot be scored: give labels, or predict them")
    if task == "classification":
        target_V = predictions.target.long()
        right_V = predictions.prediction.argmax(dim=1) == target_V
        share_V = predictions.prediction.gather(1, target_V[:, None]).clamp_min(1e-12)
        return {"accuracy": right_V.double().mean().item(), "log_loss": -share_V.log().mean().item()}
    return {"mse": (predictions.prediction.squeeze(1) - predictions.target.double()).square().mean().item()}
