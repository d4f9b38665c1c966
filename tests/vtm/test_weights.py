from __future__ import annotations

import pytest
import torch

from vtm import MergeError, MergePlan, merge_tree, weighted_mean, weights_from

ROUNDING = 1e-9


def test_it_is_the_weighted_mean_and_its_gradient_reaches_the_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    x_BNC = torch.randn(2, 60, 5, generator=generator, dtype=torch.float64)
    weights_BN = torch.rand(2, 60, generator=generator, dtype=torch.float64).requires_grad_()
    plan = merge_tree(x_BNC, grid=(5, 3, 4), base=0.3, weights=weights_BN).plan(num_tokens=7)
    merged_BMC = weighted_mean(x_BNC, plan, weights_BN)
    for clip in range(2):
        for m in range(7):
            mine_N = plan.group[clip] == m
            w_N = weights_BN[clip, mine_N]
            expected_C = (x_BNC[clip, mine_N] * w_N[:, None]).sum(dim=0) / w_N.sum()
            torch.testing.assert_close(merged_BMC[clip, m], expected_C, rtol=0, atol=ROUNDING)
    slope_BMC = torch.randn(merged_BMC.shape, generator=generator, dtype=torch.float64)
    (merged_BMC * slope_BMC).sum().backward()
    # d/dw of Σ w·x / Σ w is (x - mean) / Σ w.
    total_BN1 = plan.spread(plan.sum(weights_BN.detach()[..., None]))
    by_hand_BN = ((x_BNC - plan.spread(merged_BMC.detach())) * plan.spread(slope_BMC) / total_BN1).sum(dim=2)
    assert weights_BN.grad is not None
    torch.testing.assert_close(weights_BN.grad, by_hand_BN, rtol=0, atol=ROUNDING)
    assert float(weights_BN.grad.abs().max()) > 0.01


def test_scores_become_weights_of_mean_one() -> None:
    scores_BN = torch.tensor([[0.0, 2.0, 4.0, 2.0], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    weights_BN = weights_from(scores_BN)
    assert weights_BN.tolist() == [[0.5, 1.0, 1.5, 1.0], [1.0, 1.0, 1.0, 1.0]]
    assert weights_from(scores_BN, uniform_share=0).tolist()[0] == [0.0, 1.0, 2.0, 1.0]
    weights_BN[0, 2].backward()
    assert scores_BN.grad is not None
    assert scores_BN.grad.isfinite().all()
    assert float(scores_BN.grad[0, 2]) > 0


def test_a_group_without_weight_counts_its_tokens_alike() -> None:
    plan = MergePlan(torch.tensor([[0, 0, 1, 1]]), 2, torch.tensor([[0, 2]]))
    weights_BN = torch.tensor([[0.0, 0.0, 1.0, 3.0]], requires_grad=True)
    merged_BMC = weighted_mean(torch.tensor([[[2.0], [4.0], [0.0], [4.0]]]), plan, weights_BN)
    assert merged_BMC.flatten().tolist() == [3.0, 3.0]
    merged_BMC.sum().backward()
    assert weights_BN.grad is not None
    assert weights_BN.grad.isfinite().all()
    with pytest.raises(MergeError, match="one value for each"):
        weighted_mean(torch.zeros(1, 4, 1), plan, torch.ones(1, 3))
