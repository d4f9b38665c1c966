import math

import pytest
import torch

from tests.vtm.merge_oracle import cosine, groups_of
from vtm import MergeError, bipartite_plan, removal_schedule, size_bias

ROUNDING = 1e-12


@pytest.mark.parametrize(("total", "protected", "removed"), [(16, 0, 8), (31, 1, 7), (21, 5, 8), (17, 1, 0), (3, 1, 1)])
def test_a_round_is_the_papers_by_hand(total, protected, removed):
    keys_BND = torch.randn(2, total, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(total))
    plan = bipartite_plan(keys_BND, removed, protected=protected)
    for b in range(2):
        keys = keys_BND[b].tolist()
        first, second = range(protected, total, 2), range(protected + 1, total, 2)
        edges = []
        for i in first:
            cosines = [cosine(keys[i], keys[j]) for j in second]
            edges.append((-max(cosines), i, second[cosines.index(max(cosines))]))
        members = {i: [i] for i in range(total)}
        for _, i, j in sorted(edges)[:removed]:
            members[j] += members.pop(i)
        assert groups_of(plan.group[b]) == [sorted(members[j]) for j in sorted(members)]
        assert plan.targets[b].tolist() == sorted(members)


def test_protected_tokens_come_first_and_stay_alone():
    plan = bipartite_plan(torch.ones(1, 21, 4), 8, protected=5)
    assert plan.group[0, :5].tolist() == [0, 1, 2, 3, 4]
    assert plan.sizes[0, :5].tolist() == [1] * 5


@pytest.mark.parametrize("removed", [-1, 9])
def test_more_than_half_is_an_error(removed):
    with pytest.raises(MergeError, match=str(removed)):
        bipartite_plan(torch.ones(1, 17, 4), removed, protected=1)


def test_proportional_attention_sees_a_merged_token_as_often_as_its_patches():
    generator = torch.Generator().manual_seed(0)
    q_BhNd, k_BhNd, v_BhNd = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64, generator=generator).unbind(0)
    sizes = torch.tensor([[1, 3, 2, 1, 300]], dtype=torch.int32)
    merged = torch.nn.functional.scaled_dot_product_attention(q_BhNd, k_BhNd, v_BhNd, size_bias(sizes).double())
    k_all, v_all = (x.repeat_interleave(sizes[0].long(), dim=2) for x in (k_BhNd, v_BhNd))
    every = torch.nn.functional.scaled_dot_product_attention(q_BhNd, k_all, v_all)
    torch.testing.assert_close(merged, every, rtol=0, atol=1e-6)
    assert size_bias(sizes).dtype == torch.float32


def test_rounds_keep_the_mass():
    x_BNC = torch.randn(1, 37, 3, dtype=torch.float64)
    sizes_BN = torch.ones(1, 37, 1, dtype=torch.float64)
    merged_BNC, now_BN = x_BNC, sizes_BN
    for removed in (18, 9, 5):
        plan = bipartite_plan(merged_BNC, removed)
        merged_BNC, now_BN = plan.weighted_mean(merged_BNC, now_BN[..., 0]), plan.sum(now_BN)
    torch.testing.assert_close((merged_BNC * now_BN).sum(1), x_BNC.sum(1), rtol=0, atol=ROUNDING * 100)
    assert now_BN.sum() == 37


@pytest.mark.parametrize(
    ("tokens", "keep", "blocks"), [(256, 0.1, 12), (256, 0.02, 12), (197, 0.3, 2), (7, 1.0, 3), (256, 0.01, 7)]
)
def test_a_schedule_ends_at_its_share_and_no_round_removes_more_than_half(tokens, keep, blocks):
    removed = removal_schedule(tokens, keep, blocks)
    assert len(removed) == blocks
    assert tokens - sum(removed) == math.ceil(tokens * keep)
    for count in removed:
        assert 0 <= count <= tokens // 2
        tokens -= count


def test_each_block_removes_as_many():
    assert removal_schedule(256, 0.25, 12) == (16,) * 12


def test_a_share_that_halving_cannot_reach_is_an_error():
    with pytest.raises(MergeError, match="2 blocks that halve 256 tokens leave 64"):
        removal_schedule(256, 0.1, 2)


def test_compiles_as_one_graph():
    keys_BND = torch.randn(2, 37, 8)

    def one_round(keys):
        plan = bipartite_plan(keys, 9, protected=1)
        return plan.mean(keys)

    compiled = torch.compile(one_round, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(keys_BND), one_round(keys_BND))
