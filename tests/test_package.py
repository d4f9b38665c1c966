"""The wheel and the source archive: what is in them, and that the wheel alone extracts a video in a new environment."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.synthetic import make_video

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("hatchling", reason="hatchling builds the package; it comes with the extra `dev`")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_the_wheel_holds_what_it_needs_and_says_what_it_is(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = email.message_from_bytes(archive.read(next(n for n in names if n.endswith("METADATA"))))
    for name in ("jobs/report/page.html", "jobs/report/page.css", "jobs/report/page.js", "jobs/recipes/laptop.toml"):
        assert name in names
    assert {f"{package}/py.typed" for package in ("vtm", "pipeline", "jobs")} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]
    assert about["License-Expression"] == "Apache-2.0"
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    assert "cluster" in about.get_all("Provides-Extra", [])


def test_the_source_archive_builds_the_wheel(built: Path, tmp_path: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again")]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (wheel,), (again,) = built.glob("*.whl"), (tmp_path / "again").glob("*.whl")
    assert zipfile.ZipFile(wheel).namelist() == zipfile.ZipFile(again).namelist()


@pytest.fixture(scope="module")
def fresh(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new environment with the wheel and what it requires, in the versions of the lock; nothing of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    (wheel,) = built.glob("*.whl")
    pip(folder, "install", "--quiet", "--no-compile", "--constraint", str(ROOT / "requirements.lock"), str(wheel))
    yield folder
    shutil.rmtree(folder)  # more than a gigabyte


def pip(environment: Path, *arguments: str) -> None:
    command = [environment / "bin" / "pip", *arguments]
    done = subprocess.run(command, env=outside(), capture_output=True, text=True, check=False)
    if re.search("Max retries|NewConnectionError|Temporary failure in name resolution", done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr[-2000:]


def outside() -> dict[str, str]:
    """Variables of the process without those that lead to this checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


@pytest.mark.timeout(1200)
def test_the_wheel_alone_extracts_a_video(fresh: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    make_video(tmp_path / "film.mp4", frames=40)

    def run(program: str, *arguments: str) -> str:
        command = [fresh / "bin" / program, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=outside(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    where = "import jobs, pipeline, vtm; print(jobs.__file__, pipeline.__file__, vtm.__file__)"
    assert all(path.startswith(str(fresh)) for path in run("python", "-c", where).split())
    run(
        "vtm",
        "extract",
        "film.mp4",
        "--encoder",
        str(tiny_encoder),
        "--batch-frames",
        "2",
        "--gpus",
        "0",
        "--out",
        "out",
    )
    assert "complete and undamaged" in run("vtm", "verify", "out")
    run("vtm", "report", "out")
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert run("python", "-c", "from pipeline import TokenCache; print(len(TokenCache('out')))") == "1\n"
    assert "No broken requirements" in run("pip", "check")


@pytest.mark.timeout(1200)
def test_all_extras_can_be_had_together(built: Path, fresh: Path) -> None:
    """There are versions that agree; nothing is installed. uv resolves in a second what takes pip half a minute."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        about = email.message_from_bytes(archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))))
    extras = ",".join(about.get_all("Provides-Extra", []))
    assert "transformers" in extras
    wanted = ("--dry-run", "--quiet", "--constraint", str(ROOT / "requirements.lock"), f"{wheel}[{extras}]")
    command = [sys.executable, "-m", "uv", "pip", "install", "--python", str(fresh / "bin" / "python"), *wanted]
    done = subprocess.run(command, env=outside(), capture_output=True, text=True, check=False)
    if done.returncode:
        assert "No solution found" not in done.stderr, done.stderr
        # uv reads no pip.conf: where that alone names the index, pip is asked.
        pip(fresh, "install", *wanted)
