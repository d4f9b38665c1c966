"""Single damages in each codec: whatever differs from the undamaged video is counted as damaged, or lost."""

from __future__ import annotations

import random
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.video import scan_video
from tests.pipeline.video.damage import KINDS, Verdict, judge, read_packets, write_damaged
from tests.pipeline.video.reference import full_decode, source_of

SIZE = "scale=192:-2"
CODECS = {
    "h264": ("mp4", "-c:v libx264 -preset medium -bf 3 -g 40 -sc_threshold 0"),
    "hevc": ("mp4", "-c:v libx265 -preset fast -x265-params log-level=error:keyint=40:scenecut=0"),
    "vp9": ("webm", "-c:v libvpx-vp9 -b:v 200k -deadline realtime -cpu-used 6 -g 40"),
    "av1": ("mp4", "-c:v libsvtav1 -preset 8 -crf 35 -g 40"),
    "mpeg4": ("mp4", "-c:v mpeg4 -q:v 5 -bf 2 -g 40"),
}


@pytest.fixture(scope="session")
def originals(film: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg command is not installed")
    folder = tmp_path_factory.mktemp("undamaged")
    found = {}
    for codec, (suffix, arguments) in CODECS.items():
        found[codec] = folder / f"{codec}.{suffix}"
        command = ["ffmpeg", "-y", "-v", "error", "-ss", "200", "-t", "4", "-i", str(film), "-an", "-vf", SIZE]
        subprocess.run([*command, *arguments.split(), str(found[codec])], check=True, capture_output=True)
    return found


def sweep(original: Path, folder: Path, count: int, seed: int) -> dict[str, Verdict]:
    """So many single damages, by kind."""
    rng = random.Random(seed)
    packets = read_packets(original)
    clean = full_decode(scan_video(source_of(original)))
    table = {kind: Verdict() for kind in KINDS}
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        path = folder / f"damaged{original.suffix}"
        write_damaged(original, packets, path, kind, rng.randrange(len(packets)), rng.randrange(1 << 30))
        table[kind] += judge(original, clean, path, Fraction(8))
    return table


UNNOTICED = {("hevc", "flip"): 0.7, ("h264", "flip"): 0.25, ("vp9", "flip"): 0.02}
"""The most of the wrong samples that may go unnoticed. libavcodec's HEVC decoder checks nothing of the coded data; that
of H.264 notices where a slice's data end too soon, not too late; libvpx misses one flip in a hundred."""


def expect_none_silent(table: dict[str, dict[str, Verdict]]) -> None:
    print(f"\n{'':14}{'wrong':>8}{'counted':>9}{'missed':>8}{'in vain':>9}")
    for codec, kinds in table.items():
        for kind, verdict in kinds.items():
            print(f"{codec + ' ' + kind:14}{verdict.wrong:8}{verdict.counted:9}{verdict.missed:8}{verdict.in_vain:9}")
    for codec, kinds in table.items():
        for kind, verdict in kinds.items():
            assert (codec, kind) in UNNOTICED or not verdict.missed, f"{codec} {kind}: {verdict}"


@pytest.mark.film
def test_undamaged_files_have_nothing_counted(originals: dict[str, Path]) -> None:
    for original in originals.values():
        clean = full_decode(scan_video(source_of(original)))
        assert judge(original, clean, original, Fraction(8)) == Verdict()


@pytest.mark.film
def test_single_damages_are_counted(originals: dict[str, Path], tmp_path: Path) -> None:
    expect_none_silent({codec: sweep(original, tmp_path, 12, seed=1) for codec, original in originals.items()})


@pytest.mark.slow
@pytest.mark.film
@pytest.mark.timeout(600)
def test_two_hundred_single_damages_a_codec(originals: dict[str, Path], tmp_path: Path) -> None:
    table = {codec: sweep(original, tmp_path, 200, seed=7) for codec, original in originals.items()}
    expect_none_silent(table)
    for codec, kinds in table.items():
        for kind, verdict in kinds.items():
            assert verdict.wrong
            assert verdict.missed <= UNNOTICED.get((codec, kind), 0) * verdict.wrong, f"{codec} {kind}: {verdict}"
