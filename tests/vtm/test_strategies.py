import math
from typing import get_type_hints

import pytest
import torch

from vtm import STRATEGIES, MergeError, MergePlan, fidelity, merge_plan, plan_from_targets
from vtm.coverage import coverage_plan
from vtm.sampling import even_ranking, gumbel_noise, sampled_targets

GRID = (7, 4, 5)
TOKENS = 140


def clip(batch=2):
    generator = torch.Generator().manual_seed(0)
    keys_BND = torch.randn(batch, TOKENS, 9, generator=generator)
    cue_BTHW = torch.randn(batch, *GRID, generator=generator)
    return keys_BND, {"grid": GRID, "motion": cue_BTHW, "saliency": cue_BTHW}


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "none"])
@pytest.mark.parametrize("window_frames", [None, 3])
@pytest.mark.parametrize(
    ("amount", "whole", "windowed"),
    [
        ({"partition_factor": 6}, 24, 10 + 10 + 4),
        ({"keep": 0.25}, 35, 35),
        ({"num_tokens": 23}, 23, 23),
        ({"num_tokens": 999}, TOKENS, TOKENS),
        ({"partition_factor": 6, "merge_share": 0.8}, 24 + 24, 30 - 10 + 30 - 10 + 8),
    ],
)
def test_as_many_tokens_are_left_as_asked(strategy, window_frames, amount, whole, windowed):
    keys_BND, cues = clip()
    plan = merge_plan(keys_BND, strategy=strategy, window_frames=window_frames, **cues, **amount)
    assert plan.num_groups == (windowed if window_frames else whole)
    assert plan.sizes.min() >= 1
    assert plan.sizes.sum(dim=1).tolist() == [TOKENS, TOKENS]
    assert torch.equal(plan.targets, plan.targets.sort(dim=1).values)
    assert torch.equal(plan.group.gather(1, plan.targets), torch.arange(plan.num_groups).expand(2, -1))


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "none"])
def test_windows_merge_on_their_own(strategy):
    keys_BND, cues = clip()
    plan = merge_plan(keys_BND, strategy=strategy, window_frames=3, num_tokens=23, **cues)
    frame_N = torch.arange(TOKENS) // 20
    for b in range(2):
        assert all(len({f // 3 for f in frame_N[plan.group[b] == m].tolist()}) == 1 for m in range(23))
    if strategy == "naive":
        last = merge_plan(keys_BND[:, 120:], grid=(1, 4, 5), num_tokens=23 // 7)
        assert torch.equal(plan.group[:, 120:] - (23 - 23 // 7), last.group)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "none"])
def test_a_clip_merges_alike_alone_and_in_a_batch(strategy):
    keys_BND, cues = clip()
    both = merge_plan(keys_BND, strategy=strategy, keep=0.2, seed=[4, 5], **cues)
    alone = {name: value[1:] if isinstance(value, torch.Tensor) else value for name, value in cues.items()}
    assert torch.equal(both.group[1:], merge_plan(keys_BND[1:], strategy=strategy, keep=0.2, seed=5, **alone).group)


def test_none_merges_nothing():
    keys_BND, cues = clip()
    plan = merge_plan(keys_BND, strategy="none", **cues)
    assert plan.num_groups == TOKENS
    assert torch.equal(plan.mean(keys_BND), keys_BND)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strategy": "nave", "keep": 0.1}, "'nave'"),
        ({"strategy": "naive"}, "partition_factor, keep and num_tokens"),
        ({"strategy": "none", "keep": 0.1}, "keep, got 0.1"),
        ({"strategy": "naive", "keep": 0.1, "grid": (7, 4, 4)}, "140"),
        ({"strategy": "motion", "keep": 0.1}, "motion"),
        ({"strategy": "learnable", "keep": 0.1, "saliency": torch.zeros(2, 139)}, r"\(2, 139\)"),
        ({"strategy": "coverage", "keep": 0.1, "seed": [1, 2, 3]}, "got 3"),
        ({"strategy": "coverage", "keep": 0.1, "features": torch.zeros(2, 139, 3)}, "differ"),
        ({"strategy": "naive", "keep": 0.1, "window_frames": 0}, "window_frames"),
        ({"strategy": "naive", "num_tokens": 2, "window_frames": 3}, "3 windows"),
        ({"strategy": "naive", "keep": 0.1, "seed": [1]}, "got 1"),
        ({"strategy": "naive", "partition_factor": 3.0}, "whole number of at least 1, got 3.0"),
        ({"strategy": "naive", "keep": 0.01, "window_frames": 3}, "2 tokens cannot be left of 3 windows"),
        ({"strategy": "none", "window_frames": -4}, "window_frames is a whole number of at least 1, got -4"),
        ({"strategy": "none", "merge_share": 2}, "merge_share"),
        ({"strategy": "naive", "keep": 0.1, "grid": (0, 4, 5)}, r"one frame, row and column, got \(0, 4, 5\)"),
    ],
)
def test_impossible_requests_are_one_line_errors(settings, says):
    keys_BND, _ = clip()
    with pytest.raises(MergeError, match=says) as caught:
        merge_plan(keys_BND, **{"grid": GRID, **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("window_frames", [None, 3])
def test_no_clip_is_a_batch_too(strategy, window_frames):
    _, cues = clip(batch=0)
    amount = {} if strategy == "none" else {"keep": 0.25}
    plan = merge_plan(torch.zeros(0, TOKENS, 9), strategy=strategy, window_frames=window_frames, **cues, **amount)
    assert plan.mean(torch.zeros(0, TOKENS, 3)).shape == (0, TOKENS if strategy == "none" else 35, 3)
    assert fidelity(torch.zeros(0, TOKENS, 3), plan).shape == (0,)


@pytest.mark.parametrize(("keep", "window_frames"), [(1 / 3, 3), (0.1, 2), (0.3, 5)])
@pytest.mark.parametrize("merge_share", [1.0, 0.95])
def test_a_share_is_of_the_clip_and_not_of_each_window(keep, window_frames, merge_share):
    """294 tokens of 30 frames of 7 x 7 at a fifth, where each window rounded up would leave 300."""
    keys_BND = torch.randn(1, 30 * 49, 4)
    settings = {"grid": (30, 7, 7), "window_frames": window_frames, "merge_share": merge_share}
    plan = merge_plan(keys_BND, keep=keep, **settings)
    assert plan.num_groups == math.ceil(keep * 30 * 49 - 1e-9)
    assert merge_plan(keys_BND, keep=0.2, **settings).num_groups == 294


def test_its_annotations_can_be_read():
    hints = get_type_hints(merge_plan)
    assert hints["keep"] == float | None
    assert hints["return"] is MergePlan


@pytest.mark.parametrize(("strategy", "window_frames"), [("naive", None), ("naive", 3), ("center", 3)])
def test_compiles_as_one_graph(strategy, window_frames):
    keys_BND, _ = clip()
    settings = {"partition_factor": 6, "merge_share": 0.8, "window_frames": window_frames}

    def merge(keys, x):
        plan = merge_plan(keys, strategy=strategy, grid=GRID, **settings)
        return plan.mean(x), plan.group

    assert_compiles(merge, keys_BND, torch.randn(2, TOKENS, 3, requires_grad=True))


def test_what_is_drawn_compiles_as_one_graph_with_its_noise_given():
    """The draw itself is the CPU generator's, which no graph holds."""
    keys_BND, cues = clip()

    def merge(keys, scores, noise):
        plan = plan_from_targets(keys, sampled_targets(scores, 24, noise), 0.8)
        return plan.mean(keys), plan.group

    def cover(x, ranking, noise):
        plan = coverage_plan(x, 24, ranking, noise, 0.8)
        return plan.mean(x), plan.group

    noise_BN = gumbel_noise([3, 4], TOKENS)
    assert_compiles(merge, keys_BND, cues["motion"].flatten(1), noise_BN)
    assert_compiles(cover, keys_BND, even_ranking(GRID, [3, 4]), noise_BN)


def assert_compiles(merge, *tensors):
    torch.compiler.reset()
    compiled = torch.compile(merge, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(*tensors), merge(*tensors), strict=True):
        torch.testing.assert_close(got, expected)
