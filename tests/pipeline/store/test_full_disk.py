"""A disk that is full while shards are written: lines that say so, then either room again or an end that goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engine import writing
from pipeline.errors import EngineError
from pipeline.verify import verify
from tests.pipeline.runs import RecordingListener, rows_of, run, some_videos, tiny_recipe

SIZE_BYTES = 1 << 20
LEFT_BYTES = 96 << 10
"""Enough for the plan and what scanning found, too little for a shard of tokens that are not merged."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte, most of it taken by a file."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    (folder / "filler").write_bytes(bytes(SIZE_BYTES - LEFT_BYTES))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_room_that_comes_in_time_is_used(
    small_disk: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MakingRoom(RecordingListener):
        def note(self, text: str) -> None:
            super().note(text)
            (small_disk / "filler").unlink(missing_ok=True)

    monkeypatch.setattr(writing, "pause_s", lambda attempt: 0.1)
    videos = some_videos(tmp_path)
    recipe = tiny_recipe(tiny_encoder, strategy="none", keep=None, dtype="float32", clip_frames=7)
    listener = MakingRoom()
    summary = run(videos, small_disk / "out", recipe, listener=listener, shard_clips=100)
    assert (summary.exit_code, summary.clips) == (0, 3 + 2 + 1)
    assert any("cannot be written" in note and "No space left" in note for note in listener.notes), listener.notes
    run(videos, tmp_path / "roomy", recipe)
    assert rows_of(small_disk / "out") == rows_of(tmp_path / "roomy")
    assert verify(small_disk / "out").is_sound


def test_a_disk_that_stays_full_ends_the_run_in_one_line_and_loses_nothing(
    small_disk: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "pause_s", lambda attempt: 0.01)
    videos = some_videos(tmp_path)
    recipe = tiny_recipe(tiny_encoder, strategy="none", keep=None, dtype="float32", clip_frames=7)
    with pytest.raises(EngineError, match=r"shard [0-9a-f]{16} cannot be written: .*No space left on device"):
        run(videos, small_disk / "out", recipe, shard_clips=100)
    (small_disk / "filler").unlink()
    summary = run(videos, small_disk / "out", recipe, shard_clips=100)
    assert (summary.exit_code, summary.clips) == (0, 6)
    assert verify(small_disk / "out").is_sound
