"""`--limit`: the driver stops the run after so many committed clips, and says so."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.driver import RunDriver
from pipeline.engine import events
from pipeline.engine.job import ShardCommitted, StageTime
from pipeline.owed import Located, Owed
from pipeline.plan.plan import Plan
from pipeline.shards.commit_record import ShardManifest
from pipeline.store import open_store
from tests.pipeline.runs import RecordingListener


def driver_at(folder: Path) -> RunDriver:
    plan = Plan()
    owed, located = Owed(plan), Located(plan.videos)
    return RunDriver(open_store(folder), plan, [], owed, located, RecordingListener(), time.perf_counter())


def committed(number: int) -> ShardCommitted:
    manifest = ShardManifest(
        shard_id=f"{number:016x}", fingerprint="", num_clips=1, files=(), failures=(), damaged_frames={}, clips=()
    )
    return ShardCommitted(manifest, StageTime())


@pytest.mark.parametrize(("limit", "stops_at"), [(1, 1), (3, 3), (None, None)])
def test_it_stops_once_so_many_shards_are_committed(limit: int | None, stops_at: int | None, tmp_path: Path) -> None:
    driver = driver_at(tmp_path)
    driver.stop_after(limit)
    stopped_at = None
    for number in range(1, 6):
        driver.record(committed(number))
        if driver.answers() == [events.Stop(f"--limit {limit}")]:
            assert stopped_at is None, "said twice"
            stopped_at = number
    assert stopped_at == stops_at
    assert driver.is_limited == (limit is not None)


def test_a_run_that_ends_before_its_limit_is_not_limited(tmp_path: Path) -> None:
    driver = driver_at(tmp_path)
    driver.stop_after(2)
    driver.record(committed(1))
    assert driver.answers() == []
    assert not driver.is_limited
