"""A benchmark run as its command: `vtm bench NAME ... --json`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.cli import main


def bench(capsys: pytest.CaptureFixture[str], name: str, *options: str) -> dict[str, Any]:
    """What it prints, which has to say on what machine it was measured."""
    code = main(["bench", name, *options, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    printed: dict[str, Any] = json.loads(captured.out)
    assert " cores, " in printed["machine"]
    return printed
