"""A place that cannot be written, or cannot any more: one line, exit code 1, and the same command goes on later."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline.encode.devices import Device
from pipeline.engine import indexing, writing
from pipeline.engine.decode_worker import DecodeWorker
from pipeline.engine.job import ClipDone, Record
from pipeline.engine.write_worker import WriteWorker
from pipeline.errors import EngineError, SettingsError, StoreError
from pipeline.run import prepare
from pipeline.settings import Execution
from pipeline.store import open_store
from pipeline.store.disk import DiskStore
from pipeline.verify import verify
from tests.pipeline.runs import RecordingListener, run, some_videos, tiny_recipe


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "pause_s", lambda attempt: 0.01)
    monkeypatch.setattr(indexing, "STORE_PAUSES_S", (0.01,))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def command(videos: list[Path], out: Path, encoder: Path) -> list[str]:
    recipe = ["--encoder", str(encoder), "--strategy", "naive", "--fps", "2", "--clip-frames", "3"]
    return ["extract", *map(str, videos), "--out", str(out), "--engine", "inline", "--gpus", "0", *recipe]


def test_a_read_only_folder(
    videos: list[Path], read_only: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(videos, read_only / "out", tiny_encoder)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vtm: --out {read_only}/out cannot be written: ")
    assert "Read-only file system" in line


def test_a_folder_that_cannot_be(videos: list[Path], tiny_encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(videos, videos[0] / "out", tiny_encoder)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Not a directory" in line


def test_a_folder_that_is_removed_in_mid_run(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", tiny_recipe(tiny_encoder)

    class Removing(RecordingListener):
        def record(self, record: Record) -> None:
            super().record(record)
            if isinstance(record, ClipDone) and len(self.records) == 1:
                shutil.rmtree(out)

    with pytest.raises((StoreError, EngineError), match="not there any more"):
        run(videos, out, recipe, listener=Removing())
    assert not out.exists(), "half a run would be in the way of the next one"
    summary = run(videos, out, recipe)
    assert (summary.exit_code, summary.clips) == (0, 11)
    assert verify(out).is_sound


@pytest.mark.parametrize(
    "what", ["lease/", "plan/inputs/", "index/", "plan/videos/", "shards/", "commits/", "videos.p"]
)
def test_a_quota_that_is_used_up(
    what: str, videos: list[Path], tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, recipe, real = tmp_path / "out", tiny_recipe(tiny_encoder), DiskStore._path

    def refuse(self: DiskStore, name: str) -> Path:
        if name.startswith(what):
            raise OSError(errno.EDQUOT, "Disk quota exceeded", name)
        return real(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(DiskStore, "_path", refuse)
        with pytest.raises((StoreError, EngineError), match="quota exceeded"):
            run(videos[1:], out, recipe)
    summary = run(videos[1:], out, recipe)
    assert (summary.exit_code, summary.clips) == (0, 4)
    assert verify(out).is_sound


def test_a_node_that_does_not_share_the_folder_refuses(tiny_encoder: Path, tmp_path: Path) -> None:
    """Else it would write where nobody looks, and the run would end with no clip and no error."""
    execution = Execution(engine="inline", gpus=0)
    job = prepare(open_store(tmp_path / "out"), tiny_recipe(tiny_encoder), execution, Device(kind="cpu"))
    (tmp_path / "other").mkdir()
    elsewhere = replace(job, out=open_store(tmp_path / "other"))
    for worker in (DecodeWorker, WriteWorker):
        worker(job).start()
        with pytest.raises(SettingsError, match="is not shared with this node"):
            worker(elsewhere).start()
