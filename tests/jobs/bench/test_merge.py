"""The bench's rows at a small shape, and its peers against what they are compared with."""

from __future__ import annotations

import pytest
import torch

from jobs.bench import merge as bench_merge
from tests.jobs.bench.command import bench
from vtm import STRATEGIES, merge_plan

SMALL = ["--clip-frames", "3", "--patches", "5", "7", "--keep", "0.2", "--repeats", "1", "--device", "cpu"]
ROUNDING = 1e-12


def test_rows_are_every_strategy_and_the_peers_by_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_merge, "in_own_process", lambda measure, request: measure(request))
    rows = bench(capsys, "merge", *SMALL, "--dim", "6", "11", "--threads", str(torch.get_num_threads()))["rows"]
    names = ["tree", *(name for name in STRATEGIES if name != "none"), "dense matrix", "tome rounds", "vtm tome rounds"]
    assert [(row["dim"], row["name"]) for row in rows] == [(dim, name) for dim in (6, 11) for name in names]
    for row in rows:
        assert (row["n"], row["tokens_left"]) == (105, 21)


def test_dense_merge_is_the_naive_strategy() -> None:
    x_1ND = torch.randn(1, 105, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = merge_plan(x_1ND, strategy="naive", grid=(3, 5, 7), partition_factor=5)
    torch.testing.assert_close(bench_merge.dense_merge(x_1ND, 5), plan.mean(x_1ND), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("keep", [0.4, 0.1, 0.009])
def test_both_ways_of_tome_rounds_make_the_same_tokens(keep: float) -> None:
    """Their order differs after the first round, and with it who is dealt to which set: compared after one."""
    x_1ND = torch.randn(1, 105, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    dense, blocked = bench_merge.tome_rounds(x_1ND, keep), bench_merge.blocked_tome_rounds(x_1ND, keep)
    assert dense.shape == blocked.shape == (1, -(-int(105_000 * keep) // 1000), 6)
    one_round = bench_merge.tome_rounds(x_1ND, 0.6)[0], bench_merge.blocked_tome_rounds(x_1ND, 0.6)[0]
    first, second = (tokens_MD[tokens_MD[:, 0].argsort()] for tokens_MD in one_round)
    torch.testing.assert_close(first, second, rtol=0, atol=ROUNDING)
