"""SIGKILL of a driver after each operation of its store, and the same command again: no clip lost, none doubled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.forked_drivers import KILLED
from tests.pipeline.runs import rows_of, some_videos

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_after_each_operation_of_its_store(tiny_encoder: Path, tmp_path: Path) -> None:
    """A driver of one process; every state of the run folder that a kill can leave between two of its writes."""
    videos = some_videos(tmp_path)[1:]
    command = [sys.executable, "-m", "tests.pipeline.forked_drivers", "kill", str(tiny_encoder), str(tmp_path)]
    done = subprocess.run([*command, *map(str, videos)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 12
    want = rows_of(tmp_path / "whole")
    assert len(want) == 4
    for number, (operation, end) in enumerate(found.items(), 1):
        assert end["killed"] == (KILLED if "none" not in operation else 0), operation
        assert (end["code"], end["problems"], end["clips"]) == (0, [], 4), operation
        assert rows_of(tmp_path / f"{number:03d}") == want, operation
        # A run that is not complete never says that it is.
        is_after_the_last_commit = any(
            name in operation for name in ("commits", "failures", "videos.", "lease", "none")
        )
        assert not end["early"] or is_after_the_last_commit, operation
