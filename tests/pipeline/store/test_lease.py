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
from tests.pipeline.runs import some_videos, tiny_recipe


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


DRIVER = """
import sys
from pathlib import Path
from tests.pipeline.runs import RecordingListener, run, tiny_recipe
encoder, out, *videos = sys.argv[1:]
listener = RecordingListener()
summary = run(videos, Path(out), tiny_recipe(Path(encoder)), listener=listener)
print(summary.exit_code, summary.clips, *listener.notes, sep="|")
"""


@pytest.mark.slow
def test_two_drivers_started_at_once(tiny_encoder: Path, tmp_path: Path) -> None:
    """Three times: in one folder, with a video in common, in two orders."""
    assert tiny_recipe(tiny_encoder)
    videos = [str(path) for path in some_videos(tmp_path)]
    for attempt in range(3):
        out = tmp_path / f"out{attempt}"
        command = [sys.executable, "-c", DRIVER, str(tiny_encoder), str(out)]
        drivers = [
            subprocess.Popen([*command, *names], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for names in (videos, videos[:0:-1])
        ]
        said = [driver.communicate(timeout=120) for driver in drivers]
        assert [driver.returncode for driver in drivers] == [0, 0], said
        notes = [note for text, _ in said for note in text.strip().split("|")[2:]]
        assert all("extracts here already" in note for note in notes)
        verdict = verify(out)
        assert (verdict.problems, verdict.clips) == ((), 11)
        clips = [clip for m in read_manifests(out).values() for unit in m.clips for clip in unit.clips]
        assert len(clips) == len(set(clips)) == 11
