from __future__ import annotations

from pipeline.engine.intake import PATIENCE_S, Intake, ShardPacker
from pipeline.inputs.named import Input, VideoSource
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import ShardUnit, Unit


def source(name: str) -> Input:
    return Input(uri=name)


def video(name: str) -> PlannedVideo:
    return PlannedVideo(source=VideoSource(video_id=name, uri=name, size_bytes=1))


def intake(*names: str) -> Intake:
    found = Intake()
    found.add(tuple(source(name) for name in names), True)
    return found


def planned(found: Intake, now_s: float) -> list[str]:
    return [taken.uri for taken, _ in found.take_planned(now_s)]


def test_videos_are_planned_in_the_order_of_the_inputs() -> None:
    found = intake("a", "b", "c")
    found.scanned(source("c"), video("c"), 0.0)
    found.scanned(source("b"), video("b"), 0.0)
    assert planned(found, 1.0) == []
    found.scanned(source("a"), video("a"), 0.0)
    assert planned(found, 1.0) == ["a", "b", "c"]
    assert found.is_empty


def test_a_slow_scan_does_not_hold_the_others() -> None:
    found = intake("slow", "b", "slower", "d", "e", "f")
    for name in "bde":
        found.scanned(source(name), video(name), 0.0)
    found.scanned(source("f"), video("f"), 1.0)
    assert planned(found, PATIENCE_S - 0.1) == []
    assert planned(found, PATIENCE_S) == ["b", "d", "e", "f"]
    found.scanned(source("slower"), video("slower"), PATIENCE_S)
    assert planned(found, PATIENCE_S) == ["slower"]
    assert not found.is_empty
    found.scanned(source("slow"), video("slow"), 900.0)
    assert planned(found, 900.0) == ["slow"]
    assert found.is_empty


def test_an_input_named_twice_is_taken_twice() -> None:
    found = intake("slow", "b", "b")
    found.scanned(source("b"), video("b"), 0.0)
    found.scanned(source("b"), video("b"), 0.0)
    found.scanned(source("slow"), video("slow"), 0.0)
    assert planned(found, 0.0) == ["slow", "b", "b"]
    assert found.is_empty


def pack(units: list[Unit], shard_clips: int = 5, unit_clips: int = 2) -> list[ShardUnit]:
    packer = ShardPacker(shard_clips, unit_clips)
    return [part for unit in units for part in packer.pack(unit)]


def test_shards_are_full_of_whole_units_and_the_same_each_time() -> None:
    units = [Unit("a", 0, 3), Unit("b", 0, 7), Unit("c", 0, 1)]
    parts = pack(units)
    assert parts == pack(units)
    assert [part.unit for part in parts] == [
        Unit("a", 0, 3),
        Unit("b", 0, 2),
        Unit("b", 2, 5),
        Unit("c", 0, 1),
    ]
    shards = [part.shard_id for part in parts]
    assert shards[0] == shards[1] != shards[2]
    assert shards[3] not in shards[:3]


def test_no_clip_is_lost_or_doubled() -> None:
    for shard_clips in range(1, 7):
        for unit_clips in range(1, 5):
            parts = pack([Unit("a", 3, 11), Unit("b", 0, 1), Unit("c", 0, 6)], shard_clips, unit_clips)
            clips = [(u.video_id, i) for _, u in parts for i in range(u.first, u.first + u.count)]
            assert clips == [("a", i) for i in range(3, 14)] + [("b", 0)] + [("c", i) for i in range(6)]
            sizes = {name: sum(u.count for shard, u in parts if shard == name) for name, _ in parts}
            assert max(sizes.values()) <= shard_clips


def test_a_retry_gets_a_shard_of_its_own_name() -> None:
    first = next(ShardPacker(5, 2).pack(Unit("a", 0, 1)))
    again = next(ShardPacker(5, 2).pack(Unit("a", 0, 1), generation=1))
    assert first.shard_id != again.shard_id
