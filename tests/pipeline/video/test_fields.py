"""Field pictures: two packets may be one picture. A full decode counts pictures as libavcodec puts them out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.video import scan_video
from tests.pipeline.video.h264_fields import Picture, write
from tests.pipeline.video.reference import compare, decode_units, full_decode, source_of

RATES = (Fraction(1), Fraction(2), Fraction(30))


def greys(kind: str, count: int = 31) -> list[Picture]:
    """Every picture another grey, or a copy of the one before, in groups of ten."""
    fields = {"fields": lambda i: True, "frames": lambda i: False, "mixed": lambda i: i % 3 != 1}[kind]
    return [
        Picture(grey=20 + 6 * i if i % 5 == 0 or i % 2 == 0 else None, fields=fields(i), idr=i % 10 == 0)
        for i in range(count)
    ]


@pytest.mark.parametrize("packet_per_field", [True, False], ids=["packet a field", "packet a picture"])
@pytest.mark.parametrize("kind", ["fields", "mixed", "frames"])
@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
def test_a_pair_of_fields_is_one_picture(tmp_path: Path, suffix: str, kind: str, packet_per_field: bool) -> None:
    path = write(tmp_path / f"video{suffix}", greys(kind), packet_per_field=packet_per_field)
    for fps in RATES:
        info = compare(path, fps, clip_frames=7, unit_clips=2)
        assert (info.frames_found, info.timestamps, len(info.key_pts)) == (31, "stream", 4)


def test_second_fields_without_a_tick(tmp_path: Path) -> None:
    path = write(tmp_path / "video.ts", greys("fields"), packet_per_field=True, tick_for_second=False)
    assert compare(path, Fraction(25), clip_frames=6, unit_clips=1).frames_found == 31


def test_fields_are_shown_as_the_stream_means(tmp_path: Path) -> None:
    """Greys are coded exactly, so no other decoder is needed to know what is right."""
    path = write(tmp_path / "video.mkv", greys("fields"), packet_per_field=True)
    info = scan_video(source_of(path))
    clips = decode_units(info, Fraction(25), clip_frames=8, unit_clips=1)
    shown = [int(row[15, 20].mean()) for clip in clips for row in clip.frames]
    expected, last = [], 0
    for picture in greys("fields"):
        last = picture.grey if picture.grey is not None else last
        expected.append(round((last - 16) * 255 / 219))
    np.testing.assert_allclose(shown, expected, atol=1)
    assert len(full_decode(info)) == len(shown)
