from __future__ import annotations

import pytest
import torch

from vtm import merge_plan
from vtm.network.windows import WindowLayout, first_layout


@pytest.mark.parametrize(
    ("grid", "frames", "layout"),
    [
        ((7, 3, 5), 3, WindowLayout(2, 45, 15)),
        ((6, 3, 5), 3, WindowLayout(2, 45, 0)),
        ((2, 3, 5), 3, WindowLayout(0, 45, 30)),
    ],
)
def test_split_and_join_are_inverses(grid: tuple[int, int, int], frames: int, layout: WindowLayout) -> None:
    assert first_layout(grid, frames) == layout
    x = torch.randn(2, grid[0] * 15, 4)
    parts = layout.split(x)
    assert [len(part) for part in parts] == [2 * layout.full] * (layout.full > 0) + [2] * (layout.rest > 0)
    assert torch.equal(layout.join(parts), x)
    assert torch.equal(layout.join(layout.split(x[..., 0])), x[..., 0])


@pytest.mark.parametrize("frames", [7, 6, 2])
def test_joined_plan_merges_as_the_windows_do(frames: int) -> None:
    layout = first_layout((frames, 3, 5), 3)
    parts = layout.split(torch.randn(2, frames * 15, 4, dtype=torch.float64))
    plans = [
        merge_plan(part, strategy="naive", grid=(1, 1, part.shape[1]), partition_factor=4, merge_share=0.8)
        for part in parts
    ]
    merged = layout.join([plan.mean(part) for plan, part in zip(plans, parts, strict=True)])
    plan = layout.join_plans(plans)
    torch.testing.assert_close(plan.mean(layout.join(parts)), merged, rtol=0, atol=1e-14)
    assert torch.equal(plan.group.gather(1, plan.targets), torch.arange(plan.num_groups).expand(2, -1))


def test_next_windows_hold_whole_windows() -> None:
    """17 frames of 15 tokens in windows of 2 merge to 7 and 4 tokens a window; three windows make the next."""
    layout = first_layout((17, 3, 5), 2)
    parts = [torch.zeros(8, 7, 1), torch.zeros(1, 4, 1)]
    assert layout.next(parts, 3) == WindowLayout(2, 21, 2 * 7 + 4)
    assert first_layout((12, 3, 5), 2).next(parts[:1], 3) == WindowLayout(2, 21, 0)
