"""SIGKILL of everything in mid-run, and the same command again: no clip lost, none doubled, the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.verify import verify
from tests.pipeline.runs import rows_of, run, tiny_recipe
from tests.synthetic import make_video

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 90


def descendants(pid: int) -> list[int]:
    """A process and all it started, directly or not."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended while we looked
        parents[int(path.parent.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found


def kill_all(process: subprocess.Popen[str]) -> None:
    for pid in descendants(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # a child may go with its parent
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_killed_and_run_again(tiny_encoder: Path, tmp_path: Path, engine: str) -> None:
    videos = [make_video(tmp_path / f"{i}.mp4", frames=751, fps=25, gop=50, bframes=2, size=(64, 96)) for i in range(6)]
    # The files differ, so that they are six videos and not one.
    for i, path in enumerate(videos):
        path.write_bytes(path.read_bytes() + bytes([i]))
    out = tmp_path / "out"
    arguments = [*map(str, videos), "--encoder", str(tiny_encoder), "--out", str(out), "--engine", engine]
    arguments += ["--strategy", "naive", "--keep", "0.2", "--fps", "25", "--clip-frames", "31", "--gpus", "0"]
    arguments += ["--batch-frames", "2", "--shard-clips", "5", "--compute-dtype", "float32"]
    command = [sys.executable, "-m", "jobs.cli", "extract", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    done: list[int] = []
    for _ in range(2):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        before = len(list((out / "commits").glob("*.json")))
        deadline_s = time.monotonic() + DEADLINE_S
        while len(list((out / "commits").glob("*.json"))) < before + 2 and process.poll() is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        kill_all(process)
        done.append(len(list((out / "commits").glob("*.json"))))
    # Six videos of 25 clips in units of two, five clips a shard at most.
    assert 2 <= done[0] < done[1] < 37, f"the runs were to be killed in their middle: {done} shards"
    assert not verify(out).is_sound
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    verdict = verify(out)
    assert (verdict.problems, verdict.clips) == ((), 6 * 25)
    recipe = tiny_recipe(tiny_encoder, fps=25, clip_frames=31)
    run(videos, tmp_path / "unbroken", recipe)
    assert rows_of(out) == rows_of(tmp_path / "unbroken")
