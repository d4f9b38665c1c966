"""SIGKILL of everything in mid-run, then Ctrl-C or SIGTERM, then the same command to its end: nothing lost or doubled.

A stopped run ends by itself, and what was complete is committed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.verify import verify
from tests.pipeline.engine.disturbed import committed, some_work, wait_until
from tests.pipeline.runs import rows_of, run, tiny_recipe
from tests.processes import kill_all

ROOT = Path(__file__).resolve().parents[1]
CLIPS = 6 * 17
"""Six videos of 20 s, in clips of 1.24 s."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_work(tmp_path_factory.mktemp("videos"), videos=6, frames=501)


@pytest.fixture(scope="module")
def unbroken(videos: list[Path], tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("unbroken") / "out"
    run(videos, out, tiny_recipe(tiny_encoder, fps=25, clip_frames=31))
    return rows_of(out)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("engine", "number"), [("inline", signal.SIGINT), ("ray", signal.SIGTERM)])
def test_killed_stopped_and_run_to_its_end(
    videos: list[Path], unbroken: dict[str, Any], tiny_encoder: Path, tmp_path: Path, engine: str, number: int
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jobs.cli", "extract", *map(str, videos), "--encoder", str(tiny_encoder)]
    command += ["--out", str(out), "--engine", engine, "--strategy", "naive", "--keep", "0.2", "--fps", "25"]
    command += ["--clip-frames", "31", "--gpus", "0", "--batch-frames", "2", "--compute-dtype", "float32"]
    command += ["--shard-clips", "4"]

    process = _started(command)
    _await_shards(process, out, 2)
    kill_all(process)
    after_kill = committed(out)
    assert 2 <= after_kill < 26, f"it was to be killed in its middle, not after {after_kill} shards"
    assert not verify(out).is_sound

    process = _started(command)
    _await_shards(process, out, after_kill + 2)
    process.send_signal(number)
    shown, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"stopped by {signal.Signals(number).name}: run the same command again" in shown
    assert "Traceback" not in errors
    kept = rows_of(out)
    assert len(kept) >= after_kill + 2, "what was complete is committed"
    assert kept.items() <= unbroken.items()

    process = _started(command)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    verdict = verify(out)
    assert (verdict.problems, verdict.clips) == ((), CLIPS)
    assert rows_of(out) == unbroken


def _started(command: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _await_shards(process: subprocess.Popen[str], out: Path, count: int) -> None:
    wait_until(lambda: committed(out) >= count or process.poll() is not None, limit_s=300.0)
    assert process.poll() is None, process.communicate()
