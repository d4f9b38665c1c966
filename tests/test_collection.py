"""Whole runs over odd real videos and over damaged copies of some: everything ends, all is accounted for."""

from __future__ import annotations

import csv
import random
from fractions import Fraction
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline.shards.run_folder import read_state, video_rows
from pipeline.verify import verify
from tests.pipeline.runs import run, tiny_recipe
from tests.pipeline.video.test_real_files import damaged_copy

STATUS = {
    "made_here/truncated_vtest.avi": ("partial", "truncated"),
    "androidx_media/bbb_1ch_16kHz_aac.mp4": ("failed", "unsupported"),
    "androidx_media/bbb_1ch_48kHz_q10_opus.webm": ("failed", "unsupported"),
    "androidx_media/video_dovi_3840x2160_30fps_dav1_10.mp4": ("failed", "unsupported"),
    "made_here/zero_byte.mp4": ("failed", "corrupt"),
    "made_here/text_renamed.mp4": ("failed", "corrupt"),
    "made_here/truncated_bigbuckbunny.mp4": ("failed", "corrupt"),
}


@pytest.mark.slow
def test_every_file_is_extracted_or_recorded(
    shared_data: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_data / "videos"
    manifest = list(csv.DictReader((folder / "manifest.csv").read_text().splitlines()))
    out = tmp_path / "out"
    files = [folder / row["file"] for row in manifest]
    recipe = tiny_recipe(tiny_encoder, fps=Fraction(1), clip_frames=5)
    assert run(files, out, recipe, shard_clips=16).exit_code == 3
    assert verify(out).problems == ()
    state = read_state(out)
    by_uri = {row["uri"]: row for row in video_rows(state)}
    classes = {failed.uri: failed.failure for failed in state.settled.failures}
    assert len(by_uri) == len(manifest) == 75
    for entry, path in zip(manifest, files, strict=True):
        expected = STATUS.get(entry["file"], ("done" if entry["status"] == "OK" else "failed", None))
        assert by_uri[str(path)]["status"] == expected[0], entry["file"]
        if expected[1] is not None:
            assert classes[str(path)] == expected[1], entry["file"]
    assert main(["inspect", str(out)]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 75


@pytest.mark.slow
def test_two_hundred_damaged_files(shared_data: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    names = ["androidx_media/sample.mkv", "androidx_media/h265_bframes.mp4", "androidx_media/sample_h264.ts"]
    names += ["androidx_media/sample.avi", "torchcodec/av1_video.mkv", "androidx_media/sample-with-key-frame-index.flv"]
    originals = [shared_data / "videos" / name for name in names]
    files = []
    for seed in range(200):
        original = originals[seed % len(originals)]
        files.append(tmp_path / f"{seed:03d}{original.suffix}")
        files[-1].write_bytes(damaged_copy(original.read_bytes(), random.Random(1000 + seed)))
    recipe = tiny_recipe(tiny_encoder)
    summary = run(files, tmp_path / "out", recipe, shard_clips=32)
    assert summary.exit_code == 3
    assert summary.clips > 200
    assert verify(tmp_path / "out").problems == ()
