from __future__ import annotations

from pipeline.engine.ledger import MAX_ATTEMPTS, OpenShards, UnitWork
from pipeline.errors import DecodeError
from pipeline.planning import pack_shards
from pipeline.values import ClipSpec, FailedRange, Unit


def unit(first: int, count: int, video_id: str = "v") -> Unit:
    clips = tuple(
        ClipSpec(video_id=video_id, index=i, start_ns=10 * i, end_ns=10 * i + 10, frame_pts=(i,), frame_instants=(1,))
        for i in range(first, first + count)
    )
    return Unit(unit_id=f"{video_id}{first}", video_id=video_id, clips=clips)


def work(first: int = 0, count: int = 3) -> UnitWork:
    return UnitWork(shard_id="s", unit=unit(first, count), uri="u")


def test_what_is_worth_it_is_tried_three_times() -> None:
    at = work().after_clip()
    for attempt in range(2, MAX_ATTEMPTS + 1):
        again, failed = at.after_failure(DecodeError("crash", "died"))
        assert again is not None
        assert failed is None
        assert (again.attempts, [clip.index for clip in again.clips]) == (attempt, [1, 2])
        at = again
    rest, failed = at.after_failure(DecodeError("crash", "died"))
    assert rest is None
    assert failed == FailedRange(
        video_id="v", uri="u", start_ns=10, end_ns=30, failure="crash", message="died", attempts=MAX_ATTEMPTS
    )


def test_a_corrupt_clip_is_not_tried_again_and_goes_alone() -> None:
    rest, failed = work().after_failure(DecodeError("corrupt", "bad"))
    assert failed is not None
    assert (failed.start_ns, failed.end_ns, failed.attempts) == (0, 10, 1)
    assert rest is not None
    assert [clip.index for clip in rest.clips] == [1, 2]
    assert work(count=1).after_failure(DecodeError("corrupt", "bad"))[0] is None


def test_neighbours_that_failed_alike_are_one_range() -> None:
    (shard,) = pack_shards([unit(0, 5)], 9)
    shards: OpenShards[str] = OpenShards([shard])
    for start_ns, failure in ((30, "corrupt"), (0, "corrupt"), (10, "corrupt"), (40, "crash")):
        shards.add_failure(
            shard.shard_id,
            FailedRange(
                video_id="v", uri="u", start_ns=start_ns, end_ns=start_ns + 10, failure=failure, message="", attempts=1
            ),
        )
    _, failures = shards.take(shard.shard_id)
    assert [(f.start_ns, f.end_ns, f.failure) for f in failures] == [
        (0, 20, "corrupt"),
        (30, 40, "corrupt"),
        (40, 50, "crash"),
    ]


def test_a_shard_is_complete_when_nothing_is_outstanding() -> None:
    (shard,) = pack_shards([unit(0, 3), unit(3, 2)], 9)
    shards: OpenShards[str] = OpenShards([shard])
    for index in (4, 0, 3):
        shards.add_clip(shard.shard_id, f"v-{index:06d}", f"clip {index}")
        assert not shards.is_complete(shard.shard_id)
    lost = FailedRange(video_id="v", uri="u", start_ns=10, end_ns=30, failure="crash", message="", attempts=3)
    shards.add_failure(shard.shard_id, lost)
    assert shards.is_complete(shard.shard_id)
    assert shards.take(shard.shard_id) == (["clip 0", "clip 3", "clip 4"], [lost])


def test_shards_hold_whole_units_and_are_named_by_them() -> None:
    units = [unit(0, 3), unit(3, 3), unit(6, 3), unit(0, 7, "w")]
    shards = list(pack_shards(units, 6))
    assert [[u.unit_id for u in shard.units] for shard in shards] == [["v0", "v3"], ["v6"], ["w0"]]
    assert len({shard.shard_id for shard in shards}) == 3
    assert [shard.shard_id for shard in pack_shards(units, 6)] == [shard.shard_id for shard in shards]
    assert next(iter(pack_shards(units[:1], 1))).num_clips == 3
