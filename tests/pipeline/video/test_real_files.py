"""Real files: every one of the collection is extracted or fails with the right class, and the odd ones are exact."""

from __future__ import annotations

import csv
import random
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.plan.clips import plan_clips
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video_info import VideoInfo
from tests.pipeline.video.reference import (
    SMALL,
    compare,
    decode_units,
    expect_equal,
    full_decode,
    in_units,
    source_of,
    ticks_of,
)

FAILURES = {
    "NO VIDEO STREAM": {"unsupported"},
    "OPEN FAILS": {"corrupt", "truncated", "unsupported"},
    "NO FRAME DECODES": {"corrupt", "unsupported"},
}
DAMAGED = {"sample_with_invalid_nalu.mp4", "corrupted.mp4", "bitrot_bikes.mp4", "truncated_vtest.avi"}
# A packet that raises costs the manifest's decoder the frames it still held back (26 of 29); and it took the first of
# two streams where the ffmpeg command takes the larger.
OTHER_COUNTS = {"sample_with_invalid_nalu.mp4": 30, "nasa_13013.mp4": 390}
UNDECODABLE = {"corrupted.mp4": 1, "bitrot_bikes.mp4": 2}
LONG = {"long_1080p_videoonly_lowbitrate.mp4", "long_180p_av1.mp4", "test_video.mp4"}


def test_the_collection_agrees_with_its_manifest(shared_data: Path) -> None:
    rows = list(csv.DictReader((shared_data / "videos" / "manifest.csv").read_text().splitlines()))
    assert len(rows) == 75
    for row in rows:
        path = shared_data / "videos" / row["file"]
        if row["status"] != "OK":
            with pytest.raises(DecodeError) as error:
                scan_video(source_of(path))
            assert error.value.failure in FAILURES[row["status"]], row["file"]
            assert "\n" not in str(error.value)
            continue
        info = scan_video(source_of(path))
        expected = OTHER_COUNTS.get(path.name, int(row["frames_decoded"]) + UNDECODABLE.get(path.name, 0))
        assert info.frames_found == expected, row["file"]
        assert info.has_audio is ("no audio" not in row["flags"]), row["file"]
        if info.timestamps == "stream" and path.name not in OTHER_COUNTS:
            assert float(info.start_pts * info.time_base) == pytest.approx(float(row["first_pts"]), abs=1e-3)
            assert float(info.last_pts * info.time_base) == pytest.approx(float(row["last_pts"]), abs=1e-3)
        turned = -int(row["flags"].split("rotation ")[1].split(";")[0]) % 360 if "rotation" in row["flags"] else 0
        assert (info.rotation_deg - turned) % (180 if info.mirrored else 360) == 0, row["file"]
        assert bool(info.missing_tail_ns) == (path.name == "truncated_vtest.avi"), row["file"]


@pytest.mark.slow
def test_the_collection_equals_a_full_decode(shared_data: Path) -> None:
    """Undamaged files to the pixel; damaged ones give each clip, with the damage counted."""
    rows = csv.DictReader((shared_data / "videos" / "manifest.csv").read_text().splitlines())
    for row in rows:
        path = shared_data / "videos" / row["file"]
        if row["status"] != "OK" or path.name in LONG:
            continue
        info = scan_video(source_of(path))
        clips = decode_units(info, Fraction(7), clip_frames=11, unit_clips=2)
        if path.name in DAMAGED:
            assert [c.spec for c in clips] == list(plan_clips(info, fps=Fraction(7), clip_frames=11)), row["file"]
            continue
        assert expect_equal(info, clips, full_decode(info, wanted=ticks_of(clips)), Fraction(7)) > 0


def test_a_cut_off_file_names_what_is_missing(shared_data: Path) -> None:
    info = scan_video(source_of(shared_data / "videos/made_here/truncated_vtest.avi"))
    assert info.missing_tail_ns == 60_100_000_000
    assert any("cut off" in warning for warning in info.warnings)


@pytest.fixture(scope="session")
def odd_videos(film: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg command is not installed")
    folder = tmp_path_factory.mktemp("odd")
    x264 = "-c:v libx264 -preset ultrafast -bf 3 -b_strategy 2 -x264-params b-pyramid=normal -g 60"
    for name, arguments in {
        "b.mp4": f"{x264}",
        "opengop264.mp4": "-c:v libx264 -preset veryfast -bf 3 -x264-params open-gop=1:keyint=60:scenecut=0",
        "opengop265.mp4": "-c:v libx265 -preset ultrafast -tag:v hvc1"
        " -x265-params log-level=error:open-gop=1:keyint=60:scenecut=0:bframes=4",
        "vfr.mp4": r"-vf select='not(mod(n\,7))+lt(mod(n\,50)\,20)',scale=160:96 -vsync vfr " + x264,
        "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 1M -g 60",
        "av1.mp4": "-c:v libsvtav1 -preset 12 -crf 40 -g 60",
        "mpeg4.avi": "-c:v mpeg4 -q:v 5 -bf 2 -g 60",
        "mpeg2.ts": "-c:v mpeg2video -q:v 5 -bf 2 -g 15",
        "interlaced.mp4": "-c:v libx264 -preset veryfast -flags +ildct+ilme -g 60",
        "intrarefresh.mp4": "-c:v libx264 -preset veryfast -intra-refresh 1 -g 60",
    }.items():
        size = [] if "-vf" in arguments else ["-vf", "scale=160:96"]
        _ffmpeg(folder, "-ss", "60", "-t", "11", "-i", str(film), "-an", *size, *arguments.split(), name)
    for name, arguments in {
        "editlist.mp4": "-ss 3.3 -i b.mp4 -c copy",
        "offset.mkv": "-i b.mp4 -c copy -output_ts_offset 5",
        "b.ts": "-i b.mp4 -c copy",
        "opengop264.ts": "-i opengop264.mp4 -c copy",
        "b.mkv": "-i b.mp4 -c copy",
        "b.avi": "-i b.mp4 -c copy",
        "b.flv": "-i b.mp4 -c copy",
        "frag.mp4": "-i b.mp4 -c copy -movflags frag_keyframe+empty_moov",
        "frag1s.mp4": "-i b.mp4 -c copy -movflags frag_keyframe+empty_moov -frag_duration 1000000",
    }.items():
        _ffmpeg(folder, *arguments.split(), name)
    return sorted(folder.iterdir())


def _ffmpeg(folder: Path, *arguments: str) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-y", "-v", "error", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.film
@pytest.mark.parametrize("fps", [1, 2, 30])
def test_odd_videos_are_exact(odd_videos: list[Path], fps: int) -> None:
    """Nineteen structures, in units of 3 to 5 s: nothing missing, doubled or wrong."""
    assert len(odd_videos) == 19
    for number, path in enumerate(odd_videos):
        info = compare(path, Fraction(fps), clip_frames=fps, unit_clips=3 + number % 3)
        assert info.frames_found >= 120
        assert not info.missing_tail_ns, path.name


DAMAGE_SEEDS = 200


def damaged_copy(original: bytes, rng: random.Random) -> bytes:
    """Flip bits anywhere, cut the end off, or blank a stretch."""
    data = bytearray(original)
    kind = rng.choice(["flip", "cut", "blank"])
    if kind == "flip":
        for _ in range(rng.choice([1, 8, 200])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[rng.randrange(len(data)) :]
    else:
        start = rng.randrange(len(data))
        data[start : start + 5000] = bytes(len(data[start : start + 5000]))
    return bytes(data)


@pytest.mark.slow
def test_damaged_files_give_clips_or_errors_and_the_same_for_any_split(shared_data: Path, tmp_path: Path) -> None:
    """200 seeded variants of real files: each clip comes out, or a DecodeError does; nothing else, and never a hang."""
    names = [
        "androidx_media/sample.mkv",
        "androidx_media/sample_h264.ts",
        "androidx_media/h265_bframes.mp4",
        "androidx_media/bbb_642x642_768kbps_30fps_vp9.webm",
        "androidx_media/sample-with-key-frame-index.flv",
        "androidx_media/sample.avi",
        "androidx_media/bbb_176x144_128kbps_15fps_h263.3gp",
        "torchcodec/av1_video.mkv",
        "torchcodec/nasa_13013.mp4",
        "torchcodec/h264_10bits.mp4",
    ]
    originals = [shared_data / "videos" / name for name in names]
    outcomes = {"clips": 0, "failed scan": 0, "failed clip": 0}
    for seed in range(DAMAGE_SEEDS):
        rng = random.Random(seed)
        original = originals[seed % len(originals)]
        path = tmp_path / f"{seed}{original.suffix}"
        path.write_bytes(damaged_copy(original.read_bytes(), rng))
        try:
            info = scan_video(source_of(path))
        except DecodeError:
            outcomes["failed scan"] += 1
            continue
        one_by_one = _decode_or_fail(info, unit_clips=1)
        together = _decode_or_fail(info, unit_clips=3)
        for index, picture in together.items():
            if picture is not None and one_by_one[index] is not None:
                np.testing.assert_array_equal(picture, one_by_one[index], err_msg=f"seed {seed}, clip {index}")
        outcomes["clips"] += sum(picture is not None for picture in one_by_one.values())
        outcomes["failed clip"] += sum(picture is None for picture in one_by_one.values())
    assert outcomes["clips"] > 200
    assert outcomes["failed scan"] > 0


def _decode_or_fail(info: VideoInfo, *, unit_clips: int) -> dict[int, NDArray[np.uint8] | None]:
    found: dict[int, NDArray[np.uint8] | None] = {}
    for unit in in_units(plan_clips(info, fps=Fraction(2), clip_frames=3), unit_clips):
        found |= dict.fromkeys([clip.index for clip in unit])
        try:
            with open_video(timing_of(info)) as video:
                for clip in video.decode(unit, SMALL):
                    found[clip.spec.index] = clip.frames
        except DecodeError:
            continue
    return found
