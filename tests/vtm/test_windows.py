from __future__ import annotations

import pytest
import torch

from vtm import Grid, MergePlan, merge_plan
from vtm.windows import WindowLayout, WindowRun, layout_of, window_tokens


@pytest.mark.parametrize(
    ("grid", "frames", "runs"),
    [
        ((7, 3, 5), 3, (WindowRun(2, 45), WindowRun(1, 15))),
        ((6, 3, 5), 3, (WindowRun(2, 45),)),
        ((2, 3, 5), 3, (WindowRun(1, 30),)),
    ],
)
def test_split_and_join_are_inverses(grid: Grid, frames: int, runs: tuple[WindowRun, ...]) -> None:
    layout = layout_of(window_tokens(grid, frames))
    assert layout == WindowLayout(runs)
    x = torch.randn(2, grid[0] * 15, 4)
    parts = layout.split(x)
    assert [part.shape for part in parts] == [(2 * run.windows, run.tokens, 4) for run in runs]
    assert torch.equal(layout.join(parts), x)
    assert torch.equal(layout.join(layout.split(x[..., 0])), x[..., 0])


@pytest.mark.parametrize("frames", [7, 6, 2])
def test_joined_plan_merges_as_the_windows_do(frames: int) -> None:
    layout = layout_of(window_tokens((frames, 3, 5), 3))
    parts = layout.split(torch.randn(2, frames * 15, 4, dtype=torch.float64))
    plans = [
        merge_plan(part, strategy="naive", grid=(1, 1, part.shape[1]), partition_factor=4, merge_share=0.8)
        for part in parts
    ]
    merged = layout.join([plan.mean(part) for plan, part in zip(plans, parts, strict=True)])
    plan = layout.join_plans(plans)
    torch.testing.assert_close(plan.mean(layout.join(parts)), merged, rtol=0, atol=1e-14)
    assert torch.equal(plan.group.gather(1, plan.targets), torch.arange(plan.num_groups).expand(2, -1))


def test_grown_windows_hold_whole_windows() -> None:
    """17 frames of 15 tokens in windows of 2 merge to 7 and 4 tokens a window; three windows make the next."""
    layout = layout_of(window_tokens((17, 3, 5), 2))
    parts = [torch.zeros(8, 7, 1), torch.zeros(1, 4, 1)]
    assert layout.grown(parts, 3) == layout_of([21, 21, 2 * 7 + 4])
    assert layout_of(window_tokens((12, 3, 5), 2)).grown([torch.zeros(6, 7, 1)], 3) == layout_of([21, 21])


@pytest.mark.parametrize(("num_tokens", "runs"), [(512, 2), (120, 1), (61, 2)])
def test_a_number_of_tokens_over_many_windows_is_few_batches(
    num_tokens: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    cat = MergePlan.cat

    def counted(plans: list[MergePlan], dim: int = 0) -> MergePlan:
        batches.append(len(plans))
        return cat(plans, dim)

    monkeypatch.setattr(MergePlan, "cat", staticmethod(counted))
    plan = merge_plan(torch.randn(1, 60 * 16, 4), grid=(60, 4, 4), num_tokens=num_tokens, window_frames=1)
    assert plan.num_groups == num_tokens
    assert batches == [runs]


def test_cat_of_rows_and_of_tokens() -> None:
    one, two = (merge_plan(torch.randn(2, 12, 3), grid=(1, 3, 4), num_tokens=n) for n in (5, 5))
    x, y = torch.randn(2, 12, 3), torch.randn(2, 12, 3)
    assert torch.equal(MergePlan.cat([one, two]).mean(torch.cat((x, y))), torch.cat((one.mean(x), two.mean(y))))
    beside = MergePlan.cat([one, two], dim=1)
    assert torch.equal(beside.mean(torch.cat((x, y), dim=1)), torch.cat((one.mean(x), two.mean(y)), dim=1))
    assert torch.equal(beside.group.gather(1, beside.targets), torch.arange(10).expand(2, -1))
    assert torch.equal(one.tile(2).mean(x.view(1, 24, 3)), one.mean(x).view(1, 10, 3))
