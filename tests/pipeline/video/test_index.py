from __future__ import annotations

import json
import zlib
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DecodeError
from pipeline.video import is_one_piece, pack_info, scan_video, unpack_info
from pipeline.video.index import runs_of
from tests.pipeline.video.reference import source_of
from tests.synthetic import make_video


@given(st.lists(st.integers(1, 4), max_size=60), st.integers(-50, 50))
def test_runs_give_the_ticks_back(steps: list[int], first: int) -> None:
    ticks = np.cumsum([first, *steps]).astype(np.int64)
    np.testing.assert_array_equal(runs_of(ticks).ticks(), ticks)
    assert len(runs_of(ticks[:0]).ticks()) == 0


def test_a_constant_rate_is_one_run() -> None:
    runs = runs_of(np.arange(0, 512 * 100_000, 512, dtype=np.int64))
    assert (runs.first, runs.step, runs.count) == ((0,), (512,), (100_000,))


def test_an_index_comes_back_from_its_bytes(tmp_path: Path) -> None:
    info = scan_video(source_of(make_video(tmp_path / "video.mp4", frames=600, gop=9, bframes=2)))
    packed = pack_info(info)
    assert len(packed) < 1500
    again = unpack_info(packed)
    for field in fields(info):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(info, field.name), err_msg=field.name)


def test_an_index_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """What is kept since is not known, and decoding goes on without it."""
    info = scan_video(source_of(make_video(tmp_path / "video.ts", frames=60, gop=9)))
    content = json.loads(zlib.decompress(pack_info(info)))
    for name in ("key_places", "has_audio"):
        del content["info"][name]
    again = unpack_info(zlib.compress(json.dumps(content).encode()))
    for field in fields(info):
        wanted = getattr(replace(info, key_places=(), has_audio=None), field.name)
        np.testing.assert_array_equal(getattr(again, field.name), wanted, err_msg=field.name)


@pytest.mark.parametrize("data", [b"", b"x" * 40, zlib.compress(b"{}"), zlib.compress(b'{"format": 0}')])
def test_a_damaged_index_is_one_line(data: bytes) -> None:
    with pytest.raises(DecodeError, match="scan again"):
        unpack_info(data)


def test_a_file_of_few_keys_is_one_piece(tmp_path: Path) -> None:
    one = scan_video(source_of(make_video(tmp_path / "one.mp4", frames=3, fps=Fraction(1, 700), gop=99)))
    many = scan_video(source_of(make_video(tmp_path / "many.mp4", frames=60, gop=10)))
    assert (is_one_piece(one), is_one_piece(many)) == (True, False)
