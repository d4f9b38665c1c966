"""What all benches share: printing, timing and the memory of a process."""

from __future__ import annotations

import json

import pytest
import torch

from jobs.bench.memory import peak_bytes, reset_peak, resident_bytes
from jobs.bench.output import Columns, show
from jobs.bench.timing import repeated_s, timed

ROWS = [{"name": "a", "wall_s": 0.25, "peak_bytes": 3_000_000}, {"name": "b", "wall_s": 2.0}]
COLUMNS: Columns = {
    "": lambda row: row["name"],
    "ms": lambda row: f"{row['wall_s'] * 1e3:.0f}",
    "MB": lambda row: f"{row['peak_bytes'] / 1e6:.0f}",
}


def test_a_row_without_a_figure_has_an_empty_cell(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, machine="m", as_json=False, columns=COLUMNS, title="t")
    assert capsys.readouterr().out.splitlines() == ["t: m", "   ms    MB", "a   250   3", "b  2000"]


def test_rows_without_columns_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, machine="m", as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "m",
        "name a, wall_s 0.25, peak_bytes 3000000",
        "name b, wall_s 2",
    ]


def test_json_holds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, machine="m", as_json=True, columns=COLUMNS, more={"hours": 3})
    assert json.loads(capsys.readouterr().out) == {"machine": "m", "hours": 3, "rows": ROWS}


def test_only_the_work_is_timed() -> None:
    now_s = 10.0

    def work() -> str:
        nonlocal now_s
        now_s += 1.5
        return "done"

    assert timed(work, clock=lambda: now_s) == ("done", 1.5)
    calls: list[int] = []
    assert len(repeated_s(lambda: calls.append(1), 3)) == len(calls) == 3


def test_the_peak_holds_what_was_freed_again() -> None:
    cpu, size_bytes = torch.device("cpu"), 256 << 20
    reset_peak(cpu)
    before = peak_bytes(cpu)
    torch.ones(size_bytes // 4)
    assert peak_bytes(cpu) >= before + 0.8 * size_bytes
    assert resident_bytes("VmRSS") < before + 0.5 * size_bytes
