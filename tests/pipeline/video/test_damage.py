"""Single damages in each codec: whatever differs from the undamaged video is counted as damaged, or lost."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.video import scan_video
from tests.pipeline.video.damage import Verdict, judge, make_originals, print_table, sweep
from tests.pipeline.video.reference import full_decode, source_of


@pytest.fixture(scope="session")
def originals(film: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg command is not installed")
    return make_originals(film, tmp_path_factory.mktemp("undamaged"), seconds=2, width_px=128)


UNNOTICED = {("hevc", "flip"): 0.7, ("h264", "flip"): 0.25, ("vp9", "flip"): 0.02}
"""The most of the wrong samples that may go unnoticed. libavcodec's HEVC decoder checks nothing of the coded data; that
of H.264 notices where a CABAC slice's data end too soon, not too late; libvpx misses one flip in a hundred."""


def expect_none_silent(table: dict[str, dict[str, Verdict]]) -> None:
    print_table(table)
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
