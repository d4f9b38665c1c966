"""The bench's rows at a small shape, and its count of multiply-adds by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from jobs.bench import network as bench_network
from jobs.cli import main
from tests.jobs.bench.command import bench
from vtm.network import NetworkConfig

SMALL = [
    "--clip-frames",
    "5",
    "--patches",
    "3",
    "5",
    "--dim",
    "11",
    "--widths",
    "7",
    "6",
    "5",
    "--windows",
    "1",
    "2",
    "4",
]
SMALL += ["--heads", "2", "--head-width", "8", "--repeats", "1", "--device", "cpu"]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in this process instead of one each, and a peak that grows by 1000 bytes at every look."""
    looks = itertools.count(0, 1000)
    monkeypatch.setattr(bench_network, "peak_bytes", lambda device: next(looks))
    monkeypatch.setattr(bench_network, "in_own_process", lambda measure, request: measure(request))


def rows(capsys: pytest.CaptureFixture[str], *more: str) -> list[dict[str, Any]]:
    threads = ("--threads", str(torch.get_num_threads()))
    found: list[dict[str, Any]] = bench(capsys, "network", *SMALL, *threads, *more)["rows"]
    return found


@pytest.mark.usefixtures("in_this_process")
def test_rows_are_every_strategy_by_attention(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys)
    names = ["baseline", "naive", "center", "boundary", "motion", "learnable", "weighted"]
    assert [(row["attention"], row["name"]) for row in found] == [
        (attention, name) for attention in ("plain", "fused") for name in names
    ]
    for row in found:
        baseline = next(other for other in found if other["attention"] == row["attention"])
        assert row["multiply_adds"] < baseline["multiply_adds"] or row is baseline


@pytest.mark.usefixtures("in_this_process")
def test_ratios_are_to_the_baseline_of_the_same_attention(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three passes each, the first one untimed; memory before the network is made, and after the passes."""
    seconds = iter([[0.25, 9.0, 0.5], [0.125, 0.0625, 2.0]])
    held_bytes = iter([1000, 5000, 3000, 4000])
    passes: list[Callable[[], object]] = []

    def repeated(work: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
        passes.extend([work] * repeats)
        return next(seconds)

    monkeypatch.setattr(bench_network, "repeated_s", repeated)
    monkeypatch.setattr(bench_network, "peak_bytes", lambda device: next(held_bytes))
    options = ("--strategy", "none", "naive", "--attention", "plain", "--batch-clips", "2", "--repeats", "3")
    baseline, naive = rows(capsys, *options)
    assert (baseline["clips_per_s"], naive["clips_per_s"]) == (4, 16)
    assert (baseline["peak_bytes"], naive["peak_bytes"]) == (4000, 1000)
    assert (baseline["times_baseline"], naive["times_baseline"]) == (1, 4)
    assert (baseline["memory_saved_share"], naive["memory_saved_share"]) == (0, 0.75)
    assert len(passes) == 6


@pytest.mark.usefixtures("in_this_process")
def test_without_a_baseline_rows_have_no_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    alone = ("--strategy", "naive", "--attention", "fused")
    (row,) = rows(capsys, *alone)
    assert not {"times_baseline", "memory_saved_share"} & set(row)
    assert main(["bench", "network", *SMALL, *alone]) == 0
    header, values = capsys.readouterr().out.splitlines()[1:]
    assert "x baseline" in header
    assert "naive" in values


def test_a_row_in_a_process_of_its_own_holds_its_memory(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows(capsys, "--strategy", "none", "--attention", "plain", "--patches", "16", "16")
    # Four frames in a window: 4 · 256 tokens, two heads, four bytes; the softmax and its input.
    assert row["peak_bytes"] > 2 * 1024 * 1024 * 4


def test_multiply_adds_by_hand() -> None:
    """Four frames of six tokens, windows of 2 and 4 frames, γ = 3 and R = |S| / 2: 12 tokens merge to 8, 16 to 11."""
    shape: dict[str, Any] = {"in_width": 10, "outputs": 3, "widths": (7, 5), "windows_frames": (2, 4)}
    shape |= {"heads": 1, "head_width": 4, "partition_factor": 3, "merge_share": 0.5}
    baseline = 24 * 10 * 12 + 2 * 24 * 12 * 4 + 24 * 4 * 7 + 24 * 7 * 12 + 2 * 24 * 24 * 4 + 24 * 4 * 5
    assert bench_network.multiply_adds(NetworkConfig(strategy="none", **shape), (4, 2, 3)) == baseline
    first = 24 * 10 * 12 + 2 * 24 * 12 * 4 + 2 * 8 * 4 * 4 + 16 * 4 * 7
    second = 16 * 7 * 12 + 2 * 16 * 16 * 4 + 10 * 6 * 4 + 11 * 4 * 5
    assert bench_network.multiply_adds(NetworkConfig(strategy="naive", **shape), (4, 2, 3)) == first + second
