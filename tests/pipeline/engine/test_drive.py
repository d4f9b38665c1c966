"""The driver's part where the run's store fails for a while."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.engine import writing
from pipeline.errors import EngineError
from pipeline.store.disk import DiskStore
from pipeline.verify import verify
from tests.pipeline.runs import RecordingListener, rows_of, run, some_videos, tiny_recipe


def full_for(monkeypatch: pytest.MonkeyPatch, attempts: int) -> None:
    """The first attempts to store rows of the plan fail."""
    real, failed = DiskStore.put, []

    def put(self: DiskStore, name: str, data: bytes, **how: bool) -> None:
        if name.startswith("plan/videos/") and len(failed) < attempts:
            failed.append(name)
            raise OSError(28, "No space left on device", name)
        real(self, name, data, **how)

    monkeypatch.setattr(DiskStore, "put", put)
    monkeypatch.setattr(writing, "pause_s", lambda attempt: 0.01)


def test_a_plan_that_cannot_be_stored_is_stored_later(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, recipe, listener = some_videos(tmp_path), tiny_recipe(tiny_encoder), RecordingListener()
    run(videos, tmp_path / "unbroken", recipe)
    full_for(monkeypatch, attempts=3)
    summary = run(videos, tmp_path / "out", recipe, listener=listener)
    assert (summary.exit_code, summary.clips) == (0, 11)
    assert any("the plan cannot be stored" in note and "No space left" in note for note in listener.notes)
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "unbroken")
    assert verify(tmp_path / "out").is_sound


def test_a_plan_that_stays_unstored_ends_the_run_in_one_line(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, recipe = some_videos(tmp_path), tiny_recipe(tiny_encoder)
    with monkeypatch.context() as patch:
        full_for(patch, attempts=1000)
        with pytest.raises(EngineError, match=r"cannot be written: the plan cannot be stored: .*No space left"):
            run(videos, tmp_path / "out", recipe)
    assert run(videos, tmp_path / "out", recipe).exit_code == 0
    assert verify(tmp_path / "out").is_sound
