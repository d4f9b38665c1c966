"""Ctrl-C and SIGTERM in mid-run: an end within ten seconds, and what was complete is committed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.verify import verify
from tests.pipeline.engine.disturbed import committed, some_work, wait_until
from tests.pipeline.runs import rows_of, run, tiny_recipe

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "number"), [("inline", signal.SIGINT), ("ray", signal.SIGTERM)])
def test_a_stopped_run_ends_soon_and_goes_on(tiny_encoder: Path, tmp_path: Path, engine: str, number: int) -> None:
    videos = some_work(tmp_path, videos=12, frames=751)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jobs.cli", "extract", *map(str, videos), "--encoder", str(tiny_encoder)]
    command += ["--out", str(out), "--engine", engine, "--strategy", "naive", "--keep", "0.2", "--fps", "25"]
    command += ["--clip-frames", "31", "--gpus", "0", "--batch-frames", "2", "--compute-dtype", "float32"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        [*command, "--shard-clips", "5"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: committed(out) >= 2 or process.poll() is not None)
    process.send_signal(number)
    stopped_s = time.monotonic()
    shown, errors = process.communicate(timeout=60)
    assert time.monotonic() - stopped_s < 10
    assert process.returncode == 130, errors
    assert f"stopped by {signal.Signals(number).name}: run the same command again" in shown
    kept = rows_of(out)
    assert "Traceback" not in errors
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert verify(out).problems == ()
    run(videos, tmp_path / "unbroken", tiny_recipe(tiny_encoder, fps=25, clip_frames=31))
    unbroken = rows_of(tmp_path / "unbroken")
    assert 0 < len(kept) < len(unbroken), "it was to be stopped in its middle"
    assert kept.items() <= unbroken.items()
    assert rows_of(out) == unbroken
