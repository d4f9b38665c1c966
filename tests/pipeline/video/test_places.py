"""Key frames found by the bytes at which they begin: as exact as any other way, and less to read."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.plan.clips import plan_clips
from pipeline.video import open_video, pack_info, scan_video, timing_of, unpack_info
from pipeline.video.packets import PacketSource
from pipeline.video.places import (
    LEAST_APART_BYTES,
    MOST_PLACES,
    SKIP_READING_S,
    place_before,
    reading_pays_within_ticks,
    thinned,
)
from pipeline.video_info import VideoInfo
from tests.pipeline.video.reference import SMALL, expect_equal, full_decode, in_units, source_of
from tests.synthetic import make_video

FPS = Fraction(5)
KINDS = [
    (".ts", "libx264", 2, {"preset": "veryfast"}),
    (".ts", "mpeg2video", 2, {}),
    (".flv", "libx264", 2, {"preset": "veryfast"}),
    (".ogv", "libvpx", 0, {"deadline": "realtime", "cpu-used": "8"}),
]


@pytest.fixture(params=KINDS, ids=[suffix + " " + codec for suffix, codec, *_ in KINDS])
def scanned(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoInfo:
    """A small file of which every key frame's place is kept."""
    suffix, codec, bframes, options = request.param
    path = make_video(tmp_path / f"video{suffix}", frames=97, gop=9, bframes=bframes, codec=codec, options=options)
    monkeypatch.setattr("pipeline.video.places.LEAST_APART_BYTES", 0)
    return scan_video(source_of(path))


def decoded(info: VideoInfo) -> list[NDArray[np.uint8]]:
    """Clips of one open video, the last unit first."""
    units = in_units(plan_clips(info, fps=FPS, clip_frames=4), 1)
    with open_video(timing_of(info)) as video:
        return [clip.frames for unit in reversed(units) for clip in video.decode(unit, SMALL)]


def test_clips_are_those_of_a_full_decode(scanned: VideoInfo) -> None:
    assert len(scanned.key_places) >= len(scanned.key_pts) - 1
    with open_video(timing_of(scanned)) as video:
        clips = list(video.decode(plan_clips(scanned, fps=FPS, clip_frames=4), SMALL))
    expect_equal(scanned, clips, full_decode(scanned), FPS)
    for one, other in zip(decoded(scanned), reversed(clips), strict=True):
        np.testing.assert_array_equal(one, other.frames)


def test_each_key_frame_is_found_at_its_place(scanned: VideoInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its help: seeking by ticks is taken away."""
    monkeypatch.setattr(PacketSource, "_go_by_tick", lambda *_: False)
    source = PacketSource(scanned.source.uri, scanned.stream_index, scanned.key_places)
    known = [tick for tick in scanned.key_pts.tolist() if tick >= scanned.key_places[0][0]]
    for tick in reversed(known):
        assert source.seek_to(tick)
        found = source.read()
        assert found is not None
        assert (found.tick, found.coded.key, found.damaged) == (tick, True, False)
    source.close()


def test_places_that_are_wrong_cost_time_and_nothing_else(scanned: VideoInfo) -> None:
    wrong = tuple((tick, byte + 7) for tick, byte in scanned.key_places)
    beyond = tuple((tick, byte + (1 << 30)) for tick, byte in scanned.key_places)
    shifted = tuple(zip([t for t, _ in scanned.key_places], [0, *[b for _, b in scanned.key_places][:-1]], strict=True))
    right = decoded(scanned)
    for places in (wrong, beyond, shifted, ()):
        for one, other in zip(decoded(replace(scanned, key_places=places)), right, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_place_that_is_wrong_ends_the_trust_in_all(scanned: VideoInfo) -> None:
    """Else each further seek would read on from wherever it leads."""
    moved = tuple((tick, scanned.key_places[0][1]) for tick, _ in scanned.key_places)
    source = PacketSource(scanned.source.uri, scanned.stream_index, moved)
    last = int(scanned.key_pts[-1])
    assert source.seek_to(last)
    found = source.read()
    assert found is not None
    assert (found.tick, source.places) == (last, ())
    source.close()


def test_an_index_keeps_them(scanned: VideoInfo) -> None:
    assert unpack_info(pack_info(scanned)).key_places == scanned.key_places


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_containers_with_an_index_of_their_own_need_none(tmp_path: Path, suffix: str) -> None:
    assert scan_video(source_of(make_video(tmp_path / f"video{suffix}", frames=30))).key_places == ()


def test_places_lie_apart_and_are_few() -> None:
    keys = [(tick, 1000 * tick) for tick in range(100_000)]
    few = thinned(keys, 100_000_000)
    assert all(later[1] - earlier[1] >= LEAST_APART_BYTES for earlier, later in pairwise(few))
    assert len(few) > 100_000_000 / (LEAST_APART_BYTES + 1000) - 1
    assert len(thinned([(tick, tick << 20) for tick in range(200_000)], 200_000 << 20)) <= MOST_PLACES + 1
    assert thinned([(5, -1), (7, 10), (6, 1 << 30)], 1 << 31) == ((7, 10),)


def test_the_last_place_before_a_tick() -> None:
    places = ((10, 100), (20, 200))
    assert [place_before(places, tick) for tick in (9, 10, 19, 20, 99)] == [None, *places[:1] * 2, *places[1:] * 2]


def test_reading_on_pays_up_to_what_a_seek_costs() -> None:
    assert reading_pays_within_ticks(1000, seek_bytes=None) == SKIP_READING_S * 1000
    assert reading_pays_within_ticks(1000, seek_bytes=50_000, bytes_per_tick=100.0) == 500
    assert reading_pays_within_ticks(1000, seek_bytes=0, bytes_per_tick=100.0) == 0
    assert reading_pays_within_ticks(1000, seek_bytes=50_000, bytes_per_tick=0.0) == 0
