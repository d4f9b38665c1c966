import sys

import pytest
import torch

from vtm import fidelity, identity_plan, merge_plan, token_cosines

ROUNDING = 1e-6


@pytest.mark.parametrize("block", [1, 100, 1 << 22])
def test_equals_the_cosine_with_the_spread_mean(monkeypatch, block):
    monkeypatch.setattr(sys.modules["vtm.fidelity"], "BLOCK_VALUES", block)
    x_BNC = torch.randn(2, 105, 13, generator=torch.Generator().manual_seed(0))
    plan = merge_plan(x_BNC, grid=(3, 5, 7), keep=0.2)
    wide_BNC = x_BNC.double()
    expected_BN = torch.cosine_similarity(wide_BNC, plan.spread(plan.mean(wide_BNC)), dim=2)
    torch.testing.assert_close(token_cosines(x_BNC, plan).double(), expected_BN, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(fidelity(x_BNC, plan).double(), expected_BN.mean(dim=1), rtol=0, atol=ROUNDING)


def test_merged_tokens_of_ones_own_are_measured():
    x_BNC = torch.randn(1, 6, 4)
    plan = identity_plan(1, 6)
    torch.testing.assert_close(fidelity(x_BNC, plan), torch.ones(1))
    torch.testing.assert_close(fidelity(x_BNC.bfloat16(), plan, -x_BNC.half()), -torch.ones(1), rtol=0, atol=0.01)
    assert fidelity(torch.zeros(1, 6, 4), plan) == 0
