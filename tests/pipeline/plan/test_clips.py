from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SettingsError
from pipeline.inputs.named import VideoSource
from pipeline.plan.clips import NS_PER_S, grid_length, plan_clips
from pipeline.video_info import PicturePolicy, VideoInfo


def info_of(pts: list[int], time_base: Fraction) -> VideoInfo:
    ticks = np.asarray(pts, dtype=np.int64)
    return VideoInfo(
        source=VideoSource(video_id="v" * 32, uri="v.mp4", size_bytes=1),
        container="mp4",
        codec="h264",
        pixel_format="yuv420p",
        stream_index=0,
        width_px=3,
        height_px=2,
        rotation_deg=0,
        mirrored=False,
        picture=PicturePolicy(),
        picture_policy="",
        frame_rate=None,
        frames_header=0,
        duration_header_s=None,
        timestamps="stream",
        time_base=time_base,
        frames_found=len(pts),
        start_pts=pts[0],
        last_pts=pts[-1],
        key_pts=ticks[:1],
        frame_pts=ticks,
    )


def test_a_film_has_an_instant_for_each_second_up_to_its_last_frame() -> None:
    film = info_of([512 * i for i in range(14_315)], Fraction(1, 12_288))
    clips = plan_clips(film, fps=Fraction(1), clip_frames=60)
    assert [sum(clip.frame_instants) for clip in clips] == [60] * 9 + [57]
    assert clips[-1].end_ns == 597 * NS_PER_S
    assert clips[1].frame_pts[:2] == (60 * 12_288, 61 * 12_288)


def test_an_instant_on_the_last_frame_counts() -> None:
    assert grid_length(info_of([0, 5, 10], Fraction(1, 10)), Fraction(1)) == 2
    assert grid_length(info_of([0, 5, 9], Fraction(1, 10)), Fraction(1)) == 1


def test_a_frame_that_stays_is_kept_once_a_clip_and_its_instants_are_counted() -> None:
    slow = info_of([7, 17, 27], Fraction(1, 10))
    first, second = plan_clips(slow, fps=Fraction(2), clip_frames=3)
    assert (first.frame_pts, first.frame_instants) == ((7, 17), (2, 1))
    assert (second.frame_pts, second.frame_instants) == ((17, 27), (1, 1))
    assert (first.start_ns, first.end_ns, second.end_ns) == (0, 3 * NS_PER_S // 2, 5 * NS_PER_S // 2)


@given(
    gaps=st.lists(st.integers(1, 500), max_size=40),
    start=st.integers(-(10**12), 10**12),
    base=st.sampled_from([Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, 7), Fraction(1, 1000)]),
    fps=st.fractions(Fraction(1, 20), 60, max_denominator=1001),
    clip_frames=st.integers(1, 13),
    unit_clips=st.integers(1, 7),
)
def test_every_instant_shows_the_last_frame_at_or_before_it(
    gaps: list[int], start: int, base: Fraction, fps: Fraction, clip_frames: int, unit_clips: int
) -> None:
    pts = [start]
    for gap in gaps:
        pts.append(pts[-1] + gap)
    video = info_of(pts, base / 50)
    clips = plan_clips(video, fps=fps, clip_frames=clip_frames)
    shown = [p for clip in clips for p, n in zip(clip.frame_pts, clip.frame_instants, strict=True) for _ in range(n)]
    expected = []
    while (instant := start + len(expected) / fps / video.time_base) <= pts[-1]:
        expected.append(max(p for p in pts if p <= instant))
    assert shown == expected
    assert [clip.start_ns for clip in clips[1:]] == [clip.end_ns for clip in clips[:-1]]
    parts = [
        plan_clips(video, fps=fps, clip_frames=clip_frames, first=first, count=unit_clips)
        for first in range(0, len(clips), unit_clips)
    ]
    assert [clip for part in parts for clip in part] == list(clips)


@pytest.mark.parametrize(("fps", "clip_frames"), [(Fraction(0), 5), (Fraction(-1), 5), (Fraction(1), 0)])
def test_impossible_settings_are_refused(fps: Fraction, clip_frames: int) -> None:
    with pytest.raises(SettingsError):
        plan_clips(info_of([0], Fraction(1, 10)), fps=fps, clip_frames=clip_frames)
