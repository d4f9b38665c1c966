"""SIGKILL of everything in mid-run, and the same command again: no clip lost, none doubled, the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.verify import verify
from tests.pipeline.forked_drivers import KILLED
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe
from tests.synthetic import make_video

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 180


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
def test_killed_after_each_operation_of_its_store(tiny_encoder: Path, tmp_path: Path) -> None:
    """A driver of one process; every state of the run folder that a kill can leave between two of its writes."""
    videos = some_videos(tmp_path)[1:]
    command = [sys.executable, "-m", "tests.pipeline.forked_drivers", "kill", str(tiny_encoder), str(tmp_path)]
    done = subprocess.run([*command, *map(str, videos)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 10
    want = rows_of(tmp_path / "whole")
    assert len(want) == 4
    for number, (operation, end) in enumerate(found.items(), 1):
        assert (end["killed"], end["code"], end["problems"], end["clips"]) == (KILLED, 0, [], 4), operation
        assert rows_of(tmp_path / f"{number:03d}") == want, operation
        # A run that is not complete never says that it is.
        assert not end["early"] or "commits" in operation or number > len(found) - 3, operation


@pytest.mark.slow
def test_killed_and_run_again(tiny_encoder: Path, tmp_path: Path) -> None:
    """A driver on Ray, with all its workers."""
    videos = [make_video(tmp_path / f"{i}.mp4", frames=451, fps=25, gop=50, bframes=2, size=(64, 96)) for i in range(4)]
    # The files differ, so that they are four videos and not one.
    for i, path in enumerate(videos):
        path.write_bytes(path.read_bytes() + bytes([i]))
    out = tmp_path / "out"
    arguments = [*map(str, videos), "--encoder", str(tiny_encoder), "--out", str(out), "--engine", "ray"]
    arguments += ["--strategy", "naive", "--keep", "0.2", "--fps", "25", "--clip-frames", "31", "--gpus", "0"]
    arguments += ["--batch-frames", "2", "--shard-clips", "3", "--compute-dtype", "float32"]
    command = [sys.executable, "-m", "jobs.cli", "extract", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline_s = time.monotonic() + DEADLINE_S
    while len(list((out / "commits").glob("*.json"))) < 2 and process.poll() is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    kill_all(process)
    # Four videos of 15 clips in units of two, three clips a shard at most.
    assert 2 <= len(list((out / "commits").glob("*.json"))) < 20, "the run was to be killed in its middle"
    assert not verify(out).is_sound
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    verdict = verify(out)
    assert (verdict.problems, verdict.clips) == ((), 4 * 15)
    run(videos, tmp_path / "unbroken", tiny_recipe(tiny_encoder, fps=25, clip_frames=31))
    assert rows_of(out) == rows_of(tmp_path / "unbroken")
