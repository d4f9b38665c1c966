import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vtm import MergeError, MergePlan, identity_plan, merge_plan, plan_from_targets
from vtm.segments import scattered_sum, sort_rows, sorted_sum

GRID = (3, 5, 7)
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def random_plan(seed=0, batch=2, keep=0.2):
    keys_BND = torch.randn(batch, 105, 8, generator=torch.Generator().manual_seed(seed))
    return merge_plan(keys_BND, grid=GRID, keep=keep)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_mean_sum_and_weighted_mean_equal_a_matrix_product(dtype):
    plan = random_plan()
    x_BNC = torch.randn(2, 105, 13, generator=torch.Generator().manual_seed(1)).to(dtype)
    sizes_BN = torch.randint(1, 9, (2, 105), generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    member_BMN = (plan.group[:, None] == torch.arange(plan.num_groups)[:, None]).double()
    assert plan.mean(x_BNC).dtype == plan.weighted_mean(x_BNC, sizes_BN).dtype == dtype
    assert plan.sum(x_BNC).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    mean_BMC = member_BMN @ x_BNC.double() / plan.sizes[..., None]
    weights_BMN = member_BMN * sizes_BN[:, None]
    weighted_BMC = weights_BMN @ x_BNC.double() / weights_BMN.sum(dim=2, keepdim=True)
    close = {"rtol": ROUNDING[dtype], "atol": ROUNDING[dtype]}
    torch.testing.assert_close(plan.sum(x_BNC).double(), member_BMN @ x_BNC.double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plan.mean(x_BNC).double(), mean_BMC, **close)
    torch.testing.assert_close(plan.weighted_mean(x_BNC, sizes_BN).double(), weighted_BMC, **close)


def test_a_bfloat16_sum_goes_on_past_256():
    plan = MergePlan(torch.zeros(1, 1001, dtype=torch.int64), 1, torch.zeros(1, 1, dtype=torch.int64))
    ones_BNC = torch.ones(1, 1001, 3, dtype=torch.bfloat16)
    assert plan.sum(ones_BNC).tolist() == [[[1001.0] * 3]]
    assert plan.mean(ones_BNC).tolist() == [[[1.0] * 3]]


@given(seed=st.integers(0, 10**6), keep=st.sampled_from([0.05, 0.2, 0.37, 0.9, 1.0]))
@settings(max_examples=25, deadline=None)
def test_mass_sizes_and_spread(seed, keep):
    plan = random_plan(seed, batch=1, keep=keep)
    x_BNC = torch.arange(105.0, dtype=torch.float64).view(1, 105, 1)
    assert plan.sizes.dtype == torch.int32
    assert plan.sizes.min() >= 1
    assert plan.sizes.sum() == 105
    assert plan.sum(x_BNC).sum() == x_BNC.sum()
    assert torch.equal(plan.mean(plan.spread(plan.sum(x_BNC))), plan.sum(x_BNC))
    assert torch.equal(plan.group.gather(1, plan.targets), torch.arange(plan.num_groups)[None])
    assert torch.equal(plan.targets, plan.targets.sort(dim=1).values)


def test_spread_keeps_the_dtype_and_gives_each_token_its_group():
    plan = random_plan()
    y_BMC = torch.randint(0, 99, (2, plan.num_groups, 3), dtype=torch.int32)
    spread_BNC = plan.spread(y_BMC)
    assert spread_BNC.dtype == torch.int32
    assert all(torch.equal(spread_BNC[b, n], y_BMC[b, plan.group[b, n]]) for b in range(2) for n in range(105))


def test_composed_plans_equal_one_merge_after_the_other():
    first = random_plan(keep=0.5)
    x_BNC = torch.randn(2, 105, 4, dtype=torch.float64)
    later = plan_from_targets(first.mean(x_BNC), torch.tensor([[0, 3, 17, 40]]).expand(2, -1))
    both = first.then(later)
    torch.testing.assert_close(both.sum(x_BNC), later.sum(first.sum(x_BNC)))
    torch.testing.assert_close(both.mean(x_BNC), later.weighted_mean(first.mean(x_BNC), first.sizes))
    assert torch.equal(both.sizes, later.sum(first.sizes[..., None].double())[..., 0].int())
    assert torch.equal(both.group.gather(1, both.targets), torch.arange(4).expand(2, -1))


def test_centers_are_the_mean_positions():
    plan = random_plan()
    centers_BM3 = plan.centers(GRID)
    assert centers_BM3.dtype == torch.float32
    for b in range(2):
        for m in range(plan.num_groups):
            tokens = (plan.group[b] == m).nonzero().flatten().tolist()
            mean = [
                sum(axis) / len(tokens) for axis in zip(*((i // 35, i // 7 % 5, i % 7) for i in tokens), strict=True)
            ]
            assert centers_BM3[b, m].tolist() == torch.tensor(mean, dtype=torch.float64).float().tolist()


def test_order_by_center_is_by_t_then_y_then_x_then_index():
    plan = random_plan()
    ordered = plan.ordered_by_center(GRID)
    for b in range(2):
        centers = [tuple(c) for c in plan.centers(GRID)[b].tolist()]
        order = sorted(range(plan.num_groups), key=lambda m: (centers[m], m))
        assert ordered.targets[b].tolist() == [plan.targets[b, m].item() for m in order]
        assert ordered.sizes[b].tolist() == [plan.sizes[b, m].item() for m in order]
    x_BNC = torch.randn(2, 105, 3)
    assert torch.equal(ordered.spread(ordered.mean(x_BNC)), plan.spread(plan.mean(x_BNC)))


def test_ties_of_centers_keep_their_order():
    group_BN = torch.tensor([[0, 1, 1, 0, 2]])
    plan = MergePlan(group_BN, 3, torch.tensor([[0, 1, 4]])).ordered_by_center((1, 1, 5))
    assert plan.group.tolist() == [[0, 1, 1, 0, 2]]
    swapped = MergePlan(1 - group_BN.clamp_max(1) + 2 * (group_BN == 2), 3, torch.tensor([[1, 0, 4]]))
    assert swapped.ordered_by_center((1, 1, 5)).group.tolist() == swapped.group.tolist()


def test_gradients_reach_the_tokens_through_every_application():
    plan = random_plan()
    x_BNC = torch.randn(2, 105, 2, dtype=torch.float64, requires_grad=True)
    sizes_BN = torch.rand(2, 105, dtype=torch.float64) + 1
    assert torch.autograd.gradcheck(plan.mean, x_BNC)
    assert torch.autograd.gradcheck(plan.sum, x_BNC)
    assert torch.autograd.gradcheck(lambda x: plan.weighted_mean(x, sizes_BN), x_BNC)
    assert torch.autograd.gradcheck(lambda x: plan.spread(plan.mean(x)), x_BNC)


def test_the_sum_of_a_gpu_equals_the_sum_of_a_cpu():
    x_NC = torch.randn(105, 5, dtype=torch.float64, requires_grad=True)
    row_N = torch.randint(0, 11, (105,), generator=torch.Generator().manual_seed(4)) * 2
    rows = sort_rows(row_N[None], 22)
    torch.testing.assert_close(sorted_sum(x_NC, rows), scattered_sum(x_NC, row_N, 22))
    assert torch.autograd.gradcheck(lambda x: sorted_sum(x, rows), x_NC)


def test_identity_and_pickle():
    plan = pickle.loads(pickle.dumps(identity_plan(2, 7)))
    x_BNC = torch.randn(2, 7, 3)
    assert torch.equal(plan.mean(x_BNC), x_BNC)
    assert plan.sizes.tolist() == [[1] * 7] * 2


def test_sizes_are_counted_once_and_serve_where_gradients_are_taken():
    plan = random_plan()
    with torch.inference_mode():
        first = plan.sizes
    assert plan.sizes is first
    assert not first.is_inference()
    x_BNC = torch.randn(2, 105, 3, requires_grad=True)
    plan.mean(x_BNC).sum().backward()
    assert x_BNC.grad is not None
    with torch.inference_mode():
        assert random_plan().sizes.is_inference()


def test_wrong_shapes_are_one_line_errors():
    plan = random_plan()
    for wrong in (
        lambda: plan.mean(torch.zeros(2, 104, 3)),
        lambda: plan.sum(torch.zeros(105, 3)),
        lambda: plan.spread(torch.zeros(2, 105, 3)),
        lambda: plan.centers((3, 5, 6)),
        lambda: plan.then(identity_plan(2, 105)),
    ):
        with pytest.raises(MergeError) as caught:
            wrong()
        assert "\n" not in str(caught.value)


def test_plans_that_do_not_fit_together_are_refused():
    plan, shorter = random_plan(), identity_plan(2, 7)
    for plans, dim, message in (
        ([], 0, "one plan or more"),
        ([plan], 2, "dim 0 or 1"),
        ([plan, shorter], 0, "equal tokens and groups along dim 0"),
        ([plan, identity_plan(1, 105)], 1, r"equal rows along dim 1, got \[2, 1\]"),
    ):
        with pytest.raises(MergeError, match=message):
            MergePlan.cat(plans, dim)
    for rows in (0, 3):
        with pytest.raises(MergeError, match="divisor of the 2 rows"):
            plan.tile(rows)
