"""The driver's part where something under it fails: the run's store for a while, or the device of its own process."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from pipeline.encode import devices
from pipeline.encode.clip_encoder import ClipEncoder, Launched
from pipeline.engine import writing
from pipeline.engine.ray_cluster import connect
from pipeline.errors import EncodeError, EngineError, SettingsError
from pipeline.store.disk import DiskStore
from pipeline.values import TokenSet
from pipeline.verify import verify
from tests.faulty_source import SLOW_READ_S, FaultySystem, register
from tests.pipeline.runs import RecordingListener, rows_of, run, some_videos, tiny_recipe
from tests.synthetic import make_video


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


def test_a_scan_that_is_longer_than_its_limit_and_goes_on_is_not_lost(tiny_encoder: Path, tmp_path: Path) -> None:
    register()
    # Scanning it takes 80 reads, 3 s with their pauses.
    path = make_video(tmp_path / "long.avi", frames=126, fps=25, codec="rawvideo", size=(160, 240))
    (tmp_path / "list.txt").write_text(f"slow://{path}")
    limit_s, reads_before = 1.5, FaultySystem.slow_reads
    summary = run([tmp_path / "list.txt"], tmp_path / "out", tiny_recipe(tiny_encoder), unit_timeout_s=limit_s)
    assert (summary.exit_code, summary.clips) == (0, 4)
    assert (FaultySystem.slow_reads - reads_before) * SLOW_READ_S > 2 * limit_s


def test_a_device_lost_to_this_process_ends_the_run_and_costs_no_clip(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(kind: str) -> None:
        raise devices.BrokenDeviceError("the GPU is lost to this process")

    def finish(self: ClipEncoder, launched: Launched, uri: str) -> TokenSet:
        if launched.clip.spec.index == 2:
            raise EncodeError("an illegal memory access was encountered")
        return real(self, launched, uri)

    videos, recipe, real = some_videos(tmp_path), tiny_recipe(tiny_encoder), ClipEncoder.finish
    with monkeypatch.context() as patch:
        patch.setattr(devices, "require_device", lost)
        patch.setattr(ClipEncoder, "finish", finish)
        with pytest.raises(EngineError, match="the GPU is lost to this process"):
            run(videos, tmp_path / "out", recipe)
    summary = run(videos, tmp_path / "out", recipe)
    assert (summary.exit_code, summary.clips) == (0, 11)


@pytest.mark.parametrize(("address", "attempts"), [(None, 3), ("192.0.2.1:1", 1)])
def test_ray_that_does_not_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str | None, attempts: int
) -> None:
    """As on a machine that is so busy that a node does not start within Ray's thirty seconds."""
    tried: list[object] = []

    def init(**options: object) -> None:
        tried.append(options["address"])
        raise Exception("The current node timed out during startup.\nMore lines.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(SettingsError, match=r"timed out during startup\.$") as caught:
        connect(address)
    assert tried == [address or "local"] * attempts
    assert "\n" not in str(caught.value)
