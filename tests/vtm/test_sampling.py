import math

import pytest
import torch

from vtm import MergeError, merge_plan
from vtm.sampling import even_ranking, gumbel_noise, highest, sampled_targets

CHI_SQUARE_999 = {6: 22.46, 9: 27.88}
"""99.9 % points by degrees of freedom."""


def test_the_first_draw_follows_the_softmax():
    scores_N = torch.tensor([0.9, -0.5, 0.0, 0.3, -0.9, 0.7, 0.1])
    trials = 20_000
    noise_BN = gumbel_noise(range(trials // 100), 700).view(trials, 7)
    counts_N = sampled_targets(scores_N.expand(trials, -1), 1, noise_BN).flatten().bincount(minlength=7)
    expected_N = scores_N.softmax(0) * trials
    assert ((counts_N - expected_N) ** 2 / expected_N).sum() < CHI_SQUARE_999[6]


def test_two_draws_follow_the_softmax_without_replacement():
    weights = [math.exp(s) for s in (0.8, -0.3, 0.2, -0.9, 0.5)]
    trials, total = 20_000, sum(weights)
    noise_BN = gumbel_noise(range(trials // 100), 500).view(trials, 5)
    target_BM = sampled_targets(torch.tensor(weights).log().expand(trials, -1), 2, noise_BN)
    counts = (target_BM[:, 0] * 5 + target_BM[:, 1]).bincount(minlength=25)
    statistic = 0.0
    for i in range(5):
        for j in range(i + 1, 5):
            pair = weights[i] * weights[j] / total * (1 / (total - weights[i]) + 1 / (total - weights[j]))
            statistic += (counts[i * 5 + j].item() - pair * trials) ** 2 / (pair * trials)
    assert statistic < CHI_SQUARE_999[9]


@pytest.mark.parametrize("strategy", ["motion", "learnable", "saliency"])
def test_a_strategys_targets_follow_the_softmax_of_its_scores(strategy):
    """One target a clip, over as many clips as seeds; saliency goes by the tanh of its standardised scores."""
    scores_N = torch.tensor([0.9, -0.5, 0.0, 0.3, -0.9, 0.7, 0.1])
    trials, scores_BN = 5000, scores_N.expand(5000, -1)
    keys_BND = torch.ones(trials, 7, 2)
    cues = {"motion": scores_BN, "saliency": scores_BN, "seed": range(trials)}
    plan = merge_plan(keys_BND, strategy=strategy, grid=(1, 1, 7), num_tokens=1, **cues)
    if strategy == "saliency":
        values = scores_N.double()
        scores_N = torch.tanh((values - values.mean()) / values.std(correction=0))
    expected_N = scores_N.softmax(0) * trials
    counts_N = plan.targets.flatten().bincount(minlength=7)
    assert ((counts_N - expected_N) ** 2 / expected_N).sum() < CHI_SQUARE_999[6]


@pytest.mark.parametrize("strategy", ["motion", "saliency", "learnable", "coverage"])
def test_a_seed_is_a_plan_and_another_seed_another(strategy):
    generator = torch.Generator().manual_seed(0)
    keys_BND = torch.randn(2, 105, 8, generator=generator)
    scores_BN = torch.randn(2, 105, generator=generator)

    def group_of(seed):
        settings = {"grid": (3, 5, 7), "keep": 0.2, "motion": scores_BN, "saliency": scores_BN}
        return merge_plan(keys_BND, strategy=strategy, seed=seed, **settings).group

    state = torch.get_rng_state()
    assert torch.equal(group_of(3), group_of(3))
    assert not torch.equal(group_of(3), group_of(4))
    assert torch.equal(group_of([8, 9])[0], group_of([8, 1])[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_of_a_clip_does_not_depend_on_its_batch():
    assert torch.equal(gumbel_noise([5, 6], 31)[1], gumbel_noise([6], 31)[0])
    assert not torch.equal(gumbel_noise([5], 31), gumbel_noise([6], 31))


def test_the_scale_of_a_saliency_does_not_matter_and_no_gradient_passes():
    keys_BND = torch.randn(1, 105, 8, requires_grad=True)
    saliency_BN = torch.rand(1, 105, generator=torch.Generator().manual_seed(1)).requires_grad_()
    settings = {"strategy": "saliency", "grid": (3, 5, 7), "keep": 0.2}
    plan = merge_plan(keys_BND, saliency=saliency_BN, **settings)
    assert torch.equal(plan.group, merge_plan(keys_BND, saliency=saliency_BN * 1e-4 + 7, **settings).group)
    x_BNC = torch.randn(1, 105, 2, requires_grad=True)
    plan.mean(x_BNC).sum().backward()
    assert x_BNC.grad is not None
    assert keys_BND.grad is None
    assert saliency_BN.grad is None


@pytest.mark.parametrize(("count", "dispersion"), [(1536, 0.3), (768, 0.8)])
def test_spread_targets_lie_evenly_in_space_and_time(count, dispersion):
    grid = (60, 16, 16)
    ranking_BN = even_ranking(grid, [3, 4])
    target_BM = highest(ranking_BN, count)
    for target_M in target_BM:
        boxes_M = target_M // 256 // 15 * 16 + target_M // 16 % 16 // 4 * 4 + target_M % 16 // 4
        counts = boxes_M.bincount(minlength=64).double()
        assert counts.var() / counts.mean() < dispersion, "random targets have 1"
    fewer_BM = highest(ranking_BN, count // 2)
    assert all(set(few.tolist()) < set(more.tolist()) for few, more in zip(fewer_BM, target_BM, strict=True))
    assert not torch.equal(target_BM[0], target_BM[1])


def test_a_seed_out_of_range_is_an_error():
    with pytest.raises(MergeError, match="-1"):
        gumbel_noise([-1], 3)
