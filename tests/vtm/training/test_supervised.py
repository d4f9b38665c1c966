from __future__ import annotations

import math

import pytest
import torch

from tests.vtm.training.conftest import clip_batches
from vtm.network import VideoTokenMerging
from vtm.network.network import NetworkOutput
from vtm.plan import identity_plan
from vtm.training import TrainingError, VideoPredictions, figures, predict_videos
from vtm.training.schedule import learning_rate
from vtm.training.supervised import network_loss


def test_schedule_warms_up_and_ends_at_nothing() -> None:
    rates = [learning_rate(step, peak=1.0, warmup_steps=4, total_steps=12) for step in range(12)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.5)
    assert rates[11] == pytest.approx((1 + math.cos(math.pi * 7 / 8)) / 2)


def output_of(prediction: torch.Tensor, *auxiliary: torch.Tensor) -> NetworkOutput:
    return NetworkOutput(prediction, auxiliary, torch.zeros(2, 1, 1), identity_plan(2, 1))


def test_loss_adds_the_auxiliary_path_by_its_weight() -> None:
    values = torch.tensor([1.0, 3.0])
    main, auxiliary = torch.tensor([[2.0], [3.0]]), torch.tensor([[1.0], [1.0]])
    assert network_loss(output_of(main), values, "regression").item() == pytest.approx(0.5)
    assert network_loss(output_of(main, auxiliary), values, "regression", 0.25).item() == pytest.approx(0.5 + 0.25 * 2)
    two = output_of(main, auxiliary, main)
    assert network_loss(two, values, "regression", 0.25).item() == pytest.approx(0.5 + 0.25 * 2.5)
    even = torch.zeros(2, 4)
    loss = network_loss(output_of(even, even), torch.tensor([0, 3]), "classification")
    assert loss.item() == pytest.approx(2 * math.log(4))


def test_predictions_are_means_of_probabilities_over_a_videos_clips(network: VideoTokenMerging) -> None:
    (batch,) = clip_batches(0, batches=1, size=3)
    named = type(batch)(**{**vars(batch), "videos": ("a", "b", "a")})
    predictions = predict_videos(network.eval(), [named])
    logits = network(batch.patches, batch.grid, seeds=batch.seeds).prediction.double().detach()
    assert predictions.videos == ("a", "b")
    assert predictions.clips.tolist() == [2, 1]
    torch.testing.assert_close(predictions.prediction[0], logits[[0, 2]].softmax(dim=1).mean(dim=0))
    torch.testing.assert_close(predictions.prediction[1], logits[1].softmax(dim=0))


def test_figures_are_per_video() -> None:
    shares = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)
    found = figures("classification", VideoPredictions(("a", "b", "c"), shares, torch.ones(3), torch.tensor([0, 0, 0])))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["log_loss"] == pytest.approx(-math.log(0.75 * 0.5 * 0.2) / 3)
    values = VideoPredictions(("a", "b"), torch.tensor([[1.0], [2.0]]), torch.ones(2), torch.tensor([1.0, 4.0]))
    assert figures("regression", values) == {"mse": pytest.approx(2.0)}


def test_evaluating_nothing_is_an_error(network: VideoTokenMerging) -> None:
    with pytest.raises(TrainingError, match="no clip to predict"):
        predict_videos(network, [])
