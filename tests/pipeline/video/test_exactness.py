"""Sparse decoding in units of any size equals a plain full decode, whatever the stream looks like."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.video import scan_video
from tests.pipeline.video.reference import SMALL, compare, decode_units, in_units, source_of
from tests.synthetic import make_video, number_of

FAST = {"preset": "ultrafast", "x264-params": "bframes=3:b-adapt=0"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    gaps=st.lists(st.integers(1, 40), min_size=6, max_size=50),
    start=st.integers(0, 900),
    gop=st.integers(1, 17),
    bframes=st.integers(0, 3),
    open_gop=st.booleans(),
    suffix=st.sampled_from([".mp4", ".mkv", ".ts", ".flv"]),
    fps=st.sampled_from([Fraction(1), Fraction(2), Fraction(30), Fraction(24_000, 1001), Fraction(1, 3)]),
    clip_frames=st.integers(1, 7),
    unit_clips=st.integers(1, 3),
)
def test_h264_of_any_structure(
    gaps: list[int],
    start: int,
    gop: int,
    bframes: int,
    open_gop: bool,
    suffix: str,
    fps: Fraction,
    clip_frames: int,
    unit_clips: int,
) -> None:
    pts = [0]
    for gap in gaps:
        pts.append(pts[-1] + gap)
    options = {"preset": "veryfast", "x264-params": f"open-gop={int(open_gop)}:scenecut=0:b-pyramid=normal"}
    with tempfile.TemporaryDirectory() as folder:
        path = make_video(
            Path(folder) / f"video{suffix}",
            frames=len(pts),
            pts=pts,
            start_pts=start,
            time_base=Fraction(1, 100),
            gop=gop,
            bframes=bframes,
            options=options,
        )
        compare(path, fps, clip_frames=clip_frames, unit_clips=unit_clips)


CODECS = [
    ("video.mp4", "libx265", 3, X265),
    ("video.webm", "libvpx-vp9", 0, {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "10"}),
    ("alt_ref.webm", "libvpx", 0, {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good"}),
    ("video.mkv", "libsvtav1", 0, {"preset": "12", "svtav1-params": "lp=1"}),
    ("video.avi", "mpeg4", 2, {}),
    ("first.ts", "mpeg2video", 2, {}),
    ("video.mov", "mjpeg", 0, {}),
    ("no_ticks.avi", "libx264", 3, {"preset": "veryfast"}),
    ("refresh.mp4", "libx264", 0, {"preset": "veryfast", "intra-refresh": "1"}),
    ("refresh.ts", "libx264", 0, {"preset": "veryfast", "intra-refresh": "1"}),
    ("interlaced.mp4", "libx264", 2, {"preset": "veryfast", "flags": "+ildct+ilme"}),
]


@pytest.mark.parametrize(("name", "codec", "bframes", "options"), CODECS, ids=[f"{c[0]}-{c[1]}" for c in CODECS])
def test_other_codecs(tmp_path: Path, name: str, codec: str, bframes: int, options: dict[str, str]) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = make_video(
        tmp_path / name, frames=75, gop=13, bframes=bframes, codec=codec, options=options, pixel_format=pixel_format
    )
    for fps in (Fraction(1), Fraction(7), Fraction(30)):
        compare(path, fps, clip_frames=5, unit_clips=2)


def test_decoding_times_in_place_of_display_times_are_noticed(tmp_path: Path) -> None:
    path = make_video(tmp_path / "no_ticks.avi", frames=50, bframes=3, options=FAST)
    info = scan_video(source_of(path))
    assert (info.timestamps, info.time_base, info.frames_found) == ("ordinal", Fraction(1, 25), 50)
    clips = decode_units(info, Fraction(5), clip_frames=3, unit_clips=2)
    assert [number_of(frame) for clip in clips for frame in clip.frames] == list(range(0, 50, 5))
    assert any("unusable" in warning for warning in info.warnings)


def test_an_edit_list_hides_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=30, start_pts=-5, bframes=2)
    info = compare(path, Fraction(25), clip_frames=4, unit_clips=2)
    assert (info.frames_found, info.frames_header) == (25, 30)
    first = decode_units(info, Fraction(25), clip_frames=4, unit_clips=2)[0]
    assert [number_of(frame) for frame in first.frames] == [5, 6, 7, 8]


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv", ".avi"])
def test_the_order_of_units_does_not_matter_within_one_open_video(tmp_path: Path, suffix: str) -> None:
    from pipeline.plan.clips import plan_clips
    from pipeline.video import open_video, timing_of

    path = make_video(tmp_path / f"video{suffix}", frames=90, gop=9, bframes=2, options={"preset": "veryfast"})
    info = scan_video(source_of(path))
    units = in_units(plan_clips(info, fps=Fraction(5), clip_frames=3), 2)
    with open_video(timing_of(info)) as video:
        there = {unit[0].index: [c.frames for c in video.decode(unit, SMALL)] for unit in units}
        back = {unit[0].index: [c.frames for c in video.decode(unit, SMALL)] for unit in reversed(units)}
    for unit in units:
        for one, other in zip(there[unit[0].index], back[unit[0].index], strict=True):
            assert (one == other).all()
