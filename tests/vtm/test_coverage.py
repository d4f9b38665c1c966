import pytest
import torch
from torch.nn import functional as F

from vtm import fidelity, merge_plan, token_cosines

GRID = (12, 16, 16)
TOKENS = 12 * 256


def static_scene_with_rare_tokens():
    """Columns that look alike in every frame, which a stride aliases with, and a few tokens like nothing else."""
    generator = torch.Generator().manual_seed(0)
    column_WC = torch.randn(16, 32, generator=generator)
    x_NC = column_WC[torch.arange(TOKENS) % 16] + 0.4 * torch.randn(TOKENS, 32, generator=generator)
    rare_K = torch.randperm(TOKENS, generator=generator)[:12]
    x_NC[rare_K] = 3 * torch.randn(12, 32, generator=generator)
    return x_NC[None], rare_K


def test_covers_better_than_the_strategies_of_the_paper():
    x_BNC, rare_K = static_scene_with_rare_tokens()
    cosines = {
        strategy: token_cosines(x_BNC, merge_plan(x_BNC, strategy=strategy, grid=GRID, keep=0.05))[0]
        for strategy in ("naive", "center", "boundary", "coverage")
    }
    assert cosines["coverage"].mean() > cosines["naive"].mean() + 0.01
    assert all(cosines["coverage"].mean() > cosine_N.mean() for name, cosine_N in cosines.items() if name != "coverage")
    assert cosines["coverage"][rare_K].mean() > cosines["naive"][rare_K].mean() + 0.2


def test_groups_hold_what_is_nearest_to_their_mean():
    x_BNC, _ = static_scene_with_rare_tokens()
    plan = merge_plan(x_BNC, strategy="coverage", grid=GRID, keep=0.05)
    unit_NC = F.normalize(x_BNC[0], dim=1)
    mean_MC = F.normalize(plan.sum(unit_NC[None])[0], dim=1)
    assert ((unit_NC @ mean_MC.T).argmax(dim=1) == plan.group[0]).float().mean() > 0.8


def test_it_groups_by_the_features_where_they_are_given():
    x_BNC, _ = static_scene_with_rare_tokens()
    keys_BND = torch.randn(1, TOKENS, 5, generator=torch.Generator().manual_seed(1))
    settings = {"strategy": "coverage", "grid": GRID, "keep": 0.05}
    by_features = merge_plan(keys_BND, features=x_BNC, **settings)
    assert torch.equal(by_features.group, merge_plan(x_BNC, **settings).group)
    assert fidelity(x_BNC, by_features) > fidelity(x_BNC, merge_plan(keys_BND, **settings))


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_equal_tokens_still_give_groups_that_are_not_empty(keep, fill):
    x_BNC = torch.full((2, 105, 6), fill)
    plan = merge_plan(x_BNC, strategy="coverage", grid=(3, 5, 7), keep=keep)
    assert plan.sizes.min() == 1
    assert plan.sizes.sum(dim=1).tolist() == [105, 105]
    assert torch.equal(plan.group.gather(1, plan.targets), torch.arange(plan.num_groups).expand(2, -1))


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 104])
def test_few_and_many_groups(num_tokens):
    x_BNC = torch.randn(1, 105, 6, generator=torch.Generator().manual_seed(2))
    plan = merge_plan(x_BNC, strategy="coverage", grid=(3, 5, 7), num_tokens=num_tokens)
    assert plan.num_groups == num_tokens
    assert plan.sizes.sum() == 105
