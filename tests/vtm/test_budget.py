import pytest

from vtm import MergeError
from vtm.budget import Budget, num_merged, targets_that_leave


@pytest.mark.parametrize(
    ("settings", "total", "targets"),
    [
        ({"partition_factor": 6}, 15360, 2560),
        ({"partition_factor": 6}, 105, 18),
        ({"partition_factor": 1000}, 105, 1),
        ({"keep": 0.1}, 15360, 1536),
        ({"keep": 1 / 3}, 105, 35),
        ({"keep": 0.3}, 105, 32),
        ({"keep": 0.29}, 100, 29),
        ({"keep": 1e-9}, 105, 1),
        ({"keep": 1.0}, 105, 105),
        ({"num_tokens": 17}, 105, 17),
        ({"num_tokens": 512}, 105, 105),
        ({"num_tokens": 60, "merge_share": 0.5}, 105, 14),
        ({"keep": 0.5, "merge_share": 0.8}, 1000, 374),
    ],
)
def test_targets(settings, total, targets):
    assert Budget(**settings).targets(total) == targets


@pytest.mark.parametrize("merge_share", [0.3, 0.8, 0.29, 1.0])
def test_any_number_in_reach_can_be_left(merge_share):
    total = 53
    for left in range(total - num_merged(total - 1, merge_share), total + 1):
        targets = targets_that_leave(left, total, merge_share)
        assert total - num_merged(total - targets, merge_share) == left


def test_r_is_read_as_a_decimal():
    assert num_merged(100, 0.29) == 29
    assert num_merged(12800, 0.8) == 10240
    assert num_merged(7, 0.5) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"keep": 0.1, "num_tokens": 5},
        {"partition_factor": 6, "keep": 0.1},
        {"keep": 0},
        {"keep": 1.5},
        {"keep": -0.1},
        {"keep": float("nan")},
        {"num_tokens": 0},
        {"partition_factor": 0},
        {"partition_factor": 2.5},
        {"keep": 0.1, "merge_share": 1.1},
        {"keep": 0.1, "merge_share": -0.1},
    ],
)
def test_impossible_requests_are_one_line_errors(settings):
    with pytest.raises(MergeError) as caught:
        Budget(**settings)
    assert "\n" not in str(caught.value)


def test_a_share_out_of_reach_says_what_to_try():
    with pytest.raises(MergeError, match="raise merge_share"):
        Budget(keep=0.1, merge_share=0.5).targets(1000)
