"""The plan as columns holds what a dictionary of its rows would hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.failed_range import FailedRange
from pipeline.inputs.named import VideoSource
from pipeline.plan import blocks
from pipeline.plan.plan import Plan, read_plan
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.settled import DoneClips
from pipeline.plan.table import PlanRow, append_rows
from pipeline.plan.units import Clip, ShardUnit, Unit
from pipeline.store import open_store


def planned(number: int, uri: str, stamp: str, clips: int, *, is_read: bool = True) -> PlannedVideo:
    source = VideoSource(video_id=f"{number:032x}", uri=uri, size_bytes=number if is_read else -1, stamp=stamp)
    lost = FailedRange(
        video_id=source.video_id, uri=uri, start_ns=7, end_ns=9, failure="truncated", message=uri, attempts=1
    )
    return PlannedVideo(
        source=source,
        codec="h264" if number % 2 else "vp9",
        frames_found=1000 + number,
        duration_header_s=None if number % 3 else 12.5,
        num_clips=clips,
        start_ns=5,
        end_ns=5 + 10 * clips,
        is_sequential=number % 2 == 0,
        failures=(lost,) if number % 5 == 0 else (),
        warnings=("odd", "very odd") if number % 7 == 0 else (),
    )


@st.composite
def plan_rows(draw: st.DrawFn) -> list[PlanRow]:
    rows = []
    for _ in range(draw(st.integers(0, 23))):
        number, place = draw(st.integers(0, 6)), draw(st.integers(0, 4))
        clips = draw(st.integers(0, 5))
        video = planned(number, f"v{place}.mp4", draw(st.sampled_from(["a", "b", ""])), clips, is_read=number != 3)
        units = st.builds(
            lambda shard, first, count, held=number: ShardUnit(f"{shard:016x}", Unit(f"{held:032x}", first, count)),
            st.integers(0, 4),
            st.integers(0, 300),
            st.integers(1, 3),
        )
        rows.append(PlanRow(video, tuple(draw(st.lists(units, max_size=4))), draw(st.booleans())))
    return rows


def as_dictionaries(
    rows: list[PlanRow],
) -> tuple[dict[str, PlannedVideo], dict[str, list[Unit]], dict[tuple[str, str], str]]:
    """What the rows mean, said once more and plainly."""
    videos: dict[str, PlannedVideo] = {}
    shards: dict[str, list[Unit]] = {}
    addresses: dict[tuple[str, str], str] = {}
    for row in rows:
        source = row.video.source
        addresses[source.uri, source.stamp] = source.video_id
        if not row.is_copy or source.video_id not in videos:
            videos[source.video_id] = row.video
        for shard_id, unit in row.units:
            if unit not in shards.setdefault(shard_id, []):
                shards[shard_id].append(unit)
    read = {video.source.uri for video in videos.values() if video.source.size_bytes >= 0}
    gone = [k for k, v in videos.items() if v.source.size_bytes < 0 and v.source.uri in read]
    return {k: v for k, v in videos.items() if k not in gone}, shards, addresses


@settings(max_examples=150, deadline=None)
@given(rows=plan_rows(), files=st.integers(1, 4), block_rows=st.integers(1, 9))
def test_a_plan_holds_what_its_rows_say(
    rows: list[PlanRow], files: int, block_rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = open_store(tmp_path_factory.mktemp("plan"))
    for part in np.array_split(np.arange(len(rows)), files):
        if len(part):
            append_rows(store, [rows[i] for i in part])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_ROWS", block_rows)
        patch.setattr(blocks, "BATCH_ROWS", 3)
        check(read_plan(store), rows)


def check(plan: Plan, rows: list[PlanRow]) -> None:
    videos, shards, addresses = as_dictionaries(rows)
    assert list(plan.videos.items()) == list(videos.items())
    assert list(plan.videos) == list(videos)
    assert list(plan.videos.values()) == list(videos.values())
    assert len(plan.videos) == len(videos)
    assert {name: plan.videos[name] for name in videos} == videos
    assert list(plan.shards.items()) == list(shards.items())
    assert set(plan.addresses) == set(addresses)
    for address, video_id in addresses.items():
        number = plan.addresses.number(*address)
        assert number is not None
        assert plan.videos.names[number] == video_id
        assert plan.videos.number(video_id) == (number if video_id in videos else None)
    assert "f" * 32 not in plan.videos
    assert ("v0.mp4", "other") not in plan.addresses
    clips = [clip for units in shards.values() for unit in units for clip in unit.clips]
    assert plan.attempts_of({f"{2:032x}"}) == {c: clips.count(c) for c in clips if c.video_id == f"{2:032x}"}
    with_failures = [plan.videos.names[n] for n in plan.videos.with_failures()]
    assert with_failures == [name for name, video in videos.items() if video.failures]
    totals = dict(zip(plan.videos.names, plan.videos.column("num_clips").tolist(), strict=True))
    assert {name: totals[name] for name in videos} == {name: video.num_clips for name, video in videos.items()}
    assert sum(totals.values()) == sum(video.num_clips for video in videos.values())


def test_an_empty_plan_holds_nothing() -> None:
    plan = Plan()
    assert not plan.videos
    assert not plan.shards
    assert list(plan.addresses) == []
    assert plan.attempts_of({"0" * 32}) == {}
    assert DoneClips(plan.videos).total == 0


def test_done_clips_are_those_that_were_added(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    videos = [planned(number, f"v{number}.mp4", "a", clips) for number, clips in ((1, 4), (2, 0), (4, 3))]
    append_rows(store, [PlanRow(video) for video in videos])
    done = DoneClips(read_plan(store).videos)
    one, four = videos[0].source.video_id, videos[2].source.video_id
    done.add(Unit(one, 1, 2))
    # What a damaged record says beyond the end of a video is not the next video's.
    done.add(Unit(one, 3, 2))
    done.add(Unit("f" * 32, 0, 2))
    assert done.counts().tolist() == [3, 0, 0]
    assert [Clip(one, index) in done for index in range(5)] == [False, True, True, True, False]
    assert Clip(four, 0) not in done
    done.add(Unit(four, 2, 1))
    assert (done.counts().tolist(), done.total) == ([3, 0, 1], 4)
    assert Clip("f" * 32, 0) not in done


def test_a_video_that_moved_keeps_its_shards(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    video = planned(1, "old.mp4", "a", 2)
    append_rows(store, [PlanRow(video, (ShardUnit("0" * 16, Unit(video.source.video_id, 0, 2)),))])
    moved = replace(video, source=replace(video.source, uri="new.mp4", stamp="b"))
    append_rows(store, [PlanRow(moved)])
    plan = read_plan(store)
    assert plan.videos[video.source.video_id].source.uri == "new.mp4"
    assert plan.shards["0" * 16] == [Unit(video.source.video_id, 0, 2)]
