from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips import plan_clips, plan_units
from pipeline.errors import DecodeError
from pipeline.video import index_of, is_one_piece, open_video, read_index, scan_video, timing_of, unit_timing
from pipeline.video.index import runs_of
from tests.pipeline.video.reference import SMALL, source_of
from tests.synthetic import make_video


@given(st.lists(st.integers(1, 4), max_size=60), st.integers(-50, 50))
def test_runs_give_the_ticks_back(steps: list[int], first: int) -> None:
    ticks = np.cumsum([first, *steps]).astype(np.int64)
    np.testing.assert_array_equal(runs_of(ticks).ticks(), ticks)
    assert len(runs_of(ticks[:0]).ticks()) == 0


def test_a_constant_rate_is_one_run() -> None:
    runs = runs_of(np.arange(0, 512 * 100_000, 512, dtype=np.int64))
    assert (runs.first, runs.step, runs.count) == ((0,), (512,), (100_000,))


def test_an_index_comes_back_from_its_file(tmp_path: Path) -> None:
    info = scan_video(source_of(make_video(tmp_path / "video.mp4", frames=90, gop=9, bframes=2)))
    index = read_index(index_of(info).to_bytes())
    assert (index.frames, index.keys) == (index_of(info).frames, index_of(info).keys)
    np.testing.assert_array_equal(index.frame_pts, info.frame_pts)
    timing = index.timing_at(info.source.uri)
    expected = timing_of(info)
    np.testing.assert_array_equal(timing.key_pts, expected.key_pts)
    for name in ("uri", "stream_index", "time_base", "start_pts", "picture", "key_waits", "missing_pts"):
        assert getattr(timing, name) == getattr(expected, name)


@pytest.mark.parametrize("data", [b"", b"x" * 40, b"\x78\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_damaged_index_is_one_line(data: bytes) -> None:
    with pytest.raises(DecodeError, match="scan the video again"):
        read_index(data)


def test_an_hour_of_key_frames_does_not_travel_with_a_unit(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=600, gop=1, options={"preset": "ultrafast"})
    info = scan_video(source_of(path))
    units = plan_units(plan_clips(info, fps=Fraction(5), clip_frames=5), 2)
    for unit in units:
        timing = unit_timing(timing_of(info), unit.clips)
        assert len(timing.key_pts) < 80
        with open_video(timing) as narrow, open_video(timing_of(info)) as wide:
            for one, other in zip(narrow.decode(unit.clips, SMALL), wide.decode(unit.clips, SMALL), strict=True):
                np.testing.assert_array_equal(one.frames, other.frames)


def test_a_file_of_few_keys_is_one_piece(tmp_path: Path) -> None:
    one = scan_video(source_of(make_video(tmp_path / "one.mp4", frames=3, fps=Fraction(1, 700), gop=99)))
    many = scan_video(source_of(make_video(tmp_path / "many.mp4", frames=60, gop=10)))
    assert (is_one_piece(one), is_one_piece(many)) == (True, False)
