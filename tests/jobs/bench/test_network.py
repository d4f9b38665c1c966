"""The bench's rows at a small shape, and its count of multiply-adds by hand."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch

from jobs.bench import network as bench_network
from vtm.network import NetworkConfig

SMALL = "--frames 5 --patches 3 5 --width 11 --widths 7 6 5 --windows 1 2 4 --heads 2 --head-width 8 --repeats 1"


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in this process instead of one each, and a peak that grows by 1000 bytes at every look."""
    looks = itertools.count(0, 1000)
    monkeypatch.setattr(bench_network, "in_own_process", lambda measure, request: measure(request))
    monkeypatch.setattr(bench_network, "peak_bytes", lambda device: next(looks))


def report(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    fixed = [*SMALL.split(), "--device", "cpu", "--threads", str(torch.get_num_threads()), "--json"]
    assert bench_network.main([*fixed, *more]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


@pytest.mark.usefixtures("in_this_process")
def test_rows_are_every_strategy_by_attention_against_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    facts = report(capsys)
    names = ["baseline", "naive", "center", "boundary", "motion", "learnable", "weighted"]
    assert [(row["attention"], row["name"]) for row in facts["rows"]] == [
        (attention, name) for attention in ("plain", "fused") for name in names
    ]
    assert "torch" in facts["machine"]
    for row in facts["rows"]:
        baseline = next(other for other in facts["rows"] if other["attention"] == row["attention"])
        assert row["times_baseline"] == row["clips_per_s"] / baseline["clips_per_s"]
        assert row["memory_saved_share"] == 1 - row["peak_bytes"] / baseline["peak_bytes"] == 0
        assert row["multiply_adds"] < baseline["multiply_adds"] or row is baseline
        assert all(row[f"{stage}_s"] >= 0 for stage in bench_network.STAGES)


@pytest.mark.usefixtures("in_this_process")
def test_without_a_baseline_rows_have_no_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = report(capsys, "--strategies", "naive", "--attention", "fused")["rows"]
    assert row["clips_per_s"] > 0
    assert not {"times_baseline", "memory_saved_share"} & set(row)
    assert bench_network.main([*SMALL.split(), "--device", "cpu", "--strategies", "naive", "--attention", "fused"]) == 0
    assert "naive" in capsys.readouterr().out


def test_a_row_in_a_process_of_its_own_holds_its_memory(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = report(capsys, "--strategies", "none", "--attention", "plain", "--patches", "16", "16")["rows"]
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
