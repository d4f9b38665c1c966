"""Nothing between keys and merged tokens looks at a value on the host, so a GPU is never waited for.

Tensors on the device `meta` have shapes and no values: whatever reads one, or takes a shape from one, fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import pytest
import torch

from vtm import (
    STRATEGIES,
    MergePlan,
    agglomeration,
    bipartite_plan,
    growing,
    merge_plan,
    merge_tree,
    plan_from_targets,
    size_bias,
    token_motion,
    weighted_mean,
)
from vtm.network import NetworkConfig, NetworkStrategy, VideoTokenMerging
from vtm.segments import sort_rows, sorted_sum

GRID = (7, 4, 5)
TOKENS = 140
FLOAT64_SUM = 1e-12
DEVICES = ["meta", pytest.param("cuda", marks=pytest.mark.gpu)]


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """Reading a value is an error here: on `meta` always, on a GPU from now on."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda":
        request.getfixturevalue("cuda")
    return str(request.param)


def applied(plan: MergePlan, x_BNC: torch.Tensor) -> torch.Size:
    """Everything that a plan does; the shape of the merged tokens."""
    merged_BMC = plan.mean(x_BNC)
    plan.spread(plan.weighted_mean(x_BNC, x_BNC[..., 0].abs()))
    ordered = plan.ordered_by_center(GRID)
    half = plan_from_targets(merged_BMC, ordered.targets[:, :3].sort(dim=1).values % plan.num_groups)
    plan.then(half).sum(x_BNC)
    return merged_BMC.shape


@pytest.mark.parametrize("window_frames", [None, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_deciding_and_merging(strategy: str, window_frames: int | None, device: str) -> None:
    x_BNC = torch.ones(2, TOKENS, 9, device=device)
    amount = {} if strategy == "none" else {"num_tokens": 23, "merge_share": 0.9, "window_frames": window_frames}
    with no_waiting(device):
        cue_BN = token_motion(x_BNC, GRID)
        plan = merge_plan(x_BNC, strategy=strategy, grid=GRID, motion=cue_BN, saliency=cue_BN, **amount)
        assert plan.group.device.type == device
        assert applied(plan, x_BNC) == (2, TOKENS if strategy == "none" else 23, 9)


@pytest.mark.parametrize("max_gap_frames", [None, 1])
def test_the_tree(max_gap_frames: int | None, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[torch.Tensor] = []
    for module in (agglomeration, growing):
        monkeypatch.setattr(module, "is_complete", lambda flag: not read.append(flag))
    x_BNC = torch.ones(2, TOKENS, 9, device=device)
    with no_waiting(device):
        tree = merge_tree(x_BNC, grid=GRID, base=0.3, weights=x_BNC[..., 0], max_gap_frames=max_gap_frames)
        plan = tree.ordered_by_center(GRID).coarsen(keep=0.2).plan(num_tokens=23)
        assert applied(plan, x_BNC) == (2, 23, 9)
        assert weighted_mean(x_BNC, plan, x_BNC[..., 0]).shape == (2, 23, 9)
        assert tree.fidelity_at(23).shape == (2,)
    assert len(read) == 2, "one value a clip, at the end of its tree"


def test_rounds_inside_an_encoder(device: str) -> None:
    x_BNC = torch.ones(2, 38, 9, device=device)
    with no_waiting(device):
        plan = bipartite_plan(x_BNC, 11, protected=1)
        assert plan.weighted_mean(x_BNC, x_BNC[..., 0]).shape == (2, 27, 9)
        assert size_bias(plan.sizes).shape == (2, 1, 1, 27)


def test_the_sum_of_a_gpu(device: str) -> None:
    group_1N = torch.zeros(1, TOKENS, dtype=torch.int64, device=device)
    with no_waiting(device):
        assert sorted_sum(torch.ones(TOKENS, 9, device=device), sort_rows(group_1N, 23)).shape == (23, 9)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("strategy", get_args(NetworkStrategy))
def test_the_network(strategy: NetworkStrategy, training: bool, device: str) -> None:
    config = NetworkConfig(
        in_width=11, outputs=3, strategy=strategy, widths=(9, 7), windows_frames=(3, 6), heads=2, head_width=8
    )
    network = VideoTokenMerging(config).to(device).train(training)
    x_BNC = torch.ones(2, TOKENS, 11, device=device)
    with no_waiting(device):
        motion_BN = token_motion(x_BNC, GRID) if strategy == "motion" else None
        out = network(x_BNC, GRID, seeds=[1, 2], motion=motion_BN)
        assert out.prediction.shape == (2, 3)
        assert len(out.auxiliary) == int(training and strategy == "learnable")


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
def test_a_gpu_merges_as_the_cpu_does() -> None:
    x_BNC = torch.randn(2, TOKENS, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for strategy in STRATEGIES[1:]:
        settings = {"strategy": strategy, "grid": GRID, "keep": 0.2, "seed": [5, 6], "merge_share": 0.9}
        on_cpu = merge_plan(x_BNC, motion=x_BNC[..., 0], saliency=x_BNC[..., 1], **settings)
        moved = x_BNC.cuda()
        on_gpu = merge_plan(moved, motion=moved[..., 0], saliency=moved[..., 1], **settings)
        assert torch.equal(on_gpu.group.cpu(), on_cpu.group)
        torch.testing.assert_close(on_gpu.mean(moved).cpu(), on_cpu.mean(x_BNC), rtol=0, atol=FLOAT64_SUM)
        assert torch.equal(on_gpu.mean(moved), on_gpu.mean(moved))


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
def test_a_gpu_grows_the_tree_of_the_cpu() -> None:
    x_BNC = torch.randn(2, TOKENS, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    on_cpu, on_gpu = (merge_tree(x, grid=GRID, base=0.5, seed=[5, 6]) for x in (x_BNC, x_BNC.cuda()))
    assert torch.equal(on_gpu.parents.cpu(), on_cpu.parents)
    torch.testing.assert_close(on_gpu.losses.cpu(), on_cpu.losses)
