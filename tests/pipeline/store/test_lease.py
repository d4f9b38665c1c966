"""One driver at a time; a second waits, says who runs, and takes over when the first is gone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.shards.commits import read_manifests
from pipeline.store import lease as leases
from pipeline.store import open_store
from pipeline.store.lease import Owner, leased, newest_owner
from pipeline.verify import verify
from tests.pipeline.runs import some_videos

ROOT = Path(__file__).resolve().parents[3]


def claim(store: Path, epoch: int = 1, **changes: object) -> None:
    owner = asdict(Owner("other", "far-away", 7, "", "", 0.0, 0.0)) | changes
    open_store(store).put(f"lease/{epoch:010d}.json", json.dumps(owner).encode())


def test_a_second_driver_waits_for_the_first(tmp_path: Path) -> None:
    store, notes, order = open_store(tmp_path), list[str](), list[str]()

    def second() -> None:
        with leased(store, notes.append):
            order.append("second")

    thread = threading.Thread(target=second)
    with leased(store, notes.append):
        thread.start()
        time.sleep(1.2)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
    assert len(notes) == 1
    assert "extracts here already; waiting" in notes[0]


def test_a_heartbeat_that_stopped_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SILENT_S", 0.5)
    monkeypatch.setattr(leases, "WATCH_S", 0.1)
    claim(tmp_path)
    notes: list[str] = []
    with leased(open_store(tmp_path), notes.append):
        assert "process 7 on far-away" in notes[0]
        newest = newest_owner(open_store(tmp_path))
        assert newest is not None
        assert newest[0] == 2
        assert newest[1].token != "other"
    newest = newest_owner(open_store(tmp_path))
    assert newest is not None
    assert newest[1].is_over


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    started = leases._started(gone.pid)
    gone.wait()
    claim(tmp_path, pid=gone.pid, machine=leases._machine(), started=started or "1")
    notes: list[str] = []
    with leased(open_store(tmp_path), notes.append):
        assert notes == []


def test_an_owner_notices_that_it_was_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    with leased(open_store(tmp_path), print) as lease:
        claim(tmp_path, epoch=2)
        until_s = time.monotonic() + 10
        while lease.lost_to is None and time.monotonic() < until_s:
            time.sleep(0.02)
        assert lease.lost_to is not None
        assert lease.lost_to.host == "far-away"
    newest = newest_owner(open_store(tmp_path))
    assert newest is not None
    assert not newest[1].is_over


@pytest.mark.slow
def test_two_drivers_started_at_once(tiny_encoder: Path, tmp_path: Path) -> None:
    """Three times: in one folder, with videos in common, in two orders."""
    videos = [str(path) for path in some_videos(tmp_path)]
    command = [sys.executable, "-m", "tests.pipeline.forked_drivers", "two", str(tiny_encoder), str(tmp_path), *videos]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for attempt, found in enumerate(json.loads(done.stdout.splitlines()[-1])):
        assert found["ended"] == [0, 0], done.stderr
        assert [said["code"] for said in found["said"]] == [0, 0]
        assert all("extracts here already" in note for said in found["said"] for note in said["notes"])
        verdict = verify(tmp_path / str(attempt))
        assert (verdict.problems, verdict.clips) == ((), 11)
        manifests = read_manifests(tmp_path / str(attempt)).values()
        clips = [clip for m in manifests for unit in m.clips for clip in unit.clips]
        assert len(clips) == len(set(clips)) == 11
    assert attempt == 2
