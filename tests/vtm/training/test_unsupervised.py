from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vtm.network import SaliencyScorer, ScorerConfig
from vtm.training import ClipBatch, Task, TrainingError, TrainingSettings, train
from vtm.training.unsupervised import _inclusion_slope, credit_objective, draw_targets, scorer_figures, target_credit

GRID = (3, 5, 7)
TOKENS = 105


def test_credit_is_what_leaving_a_target_out_costs() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 23, 5, generator=generator)
    targets = torch.tensor([[0, 4, 9, 20], [1, 2, 15, 22]])
    unit = torch.nn.functional.normalize(x, dim=2)
    for b, row in enumerate(targets.tolist()):
        whole = (unit[b] @ unit[b, row].T).amax(dim=1).sum()
        for m, left_out in enumerate(row):
            rest = [target for target in row if target != left_out]
            expected = whole - (unit[b] @ unit[b, rest].T).amax(dim=1).sum()
            torch.testing.assert_close(target_credit(x, targets)[b, m], expected, rtol=1e-4, atol=1e-5)


def test_slope_is_that_of_inclusion_probabilities_that_sum_to_the_targets() -> None:
    saliency = torch.linspace(-0.9, 0.9, 31).expand(2, -1)
    slope = _inclusion_slope(saliency, 7)[0].double()
    # x / (e^x - 1) falls from 1: the rates, and from them the probabilities, come back by bisection.
    low, high = torch.zeros(31).double(), torch.full((31,), 20.0).double()
    for _ in range(60):
        middle = (low + high) / 2
        above = middle / torch.expm1(middle) > slope
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    assert (1 - torch.exp(-low)).sum().item() == pytest.approx(7, abs=1e-3)
    assert low.log().diff().tolist() == pytest.approx([0.06] * 30, abs=1e-3)


def clips_of_crowd_and_rarities(epoch: int) -> Iterator[ClipBatch]:
    """Nine in ten tokens are nearly one vector, which needs one target; the others have each their own direction."""
    generator = torch.Generator().manual_seed(epoch)
    for index in range(4):
        patches = 0.05 * torch.randn(4, TOKENS, 16, generator=generator)
        patches[..., 0] += 1
        rare = torch.rand(4, TOKENS, generator=generator) < 0.1
        patches[rare] = torch.randn(int(rare.sum()), 16, generator=generator)
        yield ClipBatch(patches=patches, grid=GRID, seeds=tuple(range(index * 4, index * 4 + 4)))


def test_scorer_learns_to_keep_what_nothing_else_stands_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scorer = SaliencyScorer(ScorerConfig(in_width=16, key_width=8))
    task = Task[SaliencyScorer](
        objective=credit_objective(6),
        batches=clips_of_crowd_and_rarities,
        steps_per_epoch=4,
        validate=lambda model: scorer_figures(model, clips_of_crowd_and_rarities(99), 6),
        score="fidelity",
        keep_best=lambda _: None,
    )
    train(scorer, task, TrainingSettings(epochs=20, warmup_epochs=1, learning_rate=1e-2), tmp_path)
    found = scorer_figures(scorer.eval(), clips_of_crowd_and_rarities(99), 6)
    assert found["fidelity"] > found["fidelity_unscored"] + 0.005


def test_targets_depend_on_the_seed() -> None:
    saliency = torch.zeros(2, TOKENS)
    first, second = draw_targets(saliency, (1, 2), 6), draw_targets(saliency, (1, 3), 6)
    assert first.shape == (2, 18)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_impossible_requests_are_named() -> None:
    with pytest.raises(TrainingError, match="two targets at least"):
        target_credit(torch.zeros(1, 5, 3), torch.tensor([[0]]))
    with pytest.raises(TrainingError, match="no held-out clip"):
        scorer_figures(SaliencyScorer(ScorerConfig(in_width=3)), [], 6)


def test_gradient_reaches_the_scorer() -> None:
    scorer = SaliencyScorer(ScorerConfig(in_width=16, key_width=8))
    batch = next(clips_of_crowd_and_rarities(0))
    credit_objective(6)(scorer, dataclasses.replace(batch)).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in scorer.parameters())
