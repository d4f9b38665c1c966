"""`vtm submit` against a real Ray head with its dashboard, on this machine: submit, follow, stop, submit again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline import TokenCache
from tests.synthetic import make_video

pytest.importorskip("aiohttp_cors", reason="the extra `cluster` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_up(address: str) -> bool:
    from ray.job_submission import JobSubmissionClient

    try:
        JobSubmissionClient(address).list_jobs()
    except (ConnectionError, RuntimeError, OSError):
        return False
    return True


@pytest.fixture(scope="module")
def temporary() -> Iterator[str]:
    """A folder with a short name: that of a socket below it may have 107 bytes, and pytest's own takes many of them."""
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture(scope="module")
def dashboard(temporary: str) -> Iterator[str]:
    """A Ray head of its own, with two GPUs that do not exist; only this head is ended afterwards."""
    port, dashboard_port = free_port(), free_port()
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    command += [f"--dashboard-port={dashboard_port}", "--num-cpus=2", "--num-gpus=2", f"--temp-dir={temporary}"]
    command += ["--dashboard-agent-listen-port=0", "--disable-usage-stats", "--object-store-memory=300000000"]
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    # A token that lies in the home folder would be asked for.
    environment["RAY_AUTH_MODE"] = "disabled"
    # Jobs run the `python` of the node.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    head = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{dashboard_port}"
    try:
        until_s = time.monotonic() + 180
        while not is_up(address):
            assert head.poll() is None, "the Ray head ended"
            assert time.monotonic() < until_s, "the Ray head did not start"
            time.sleep(1)
        yield address
    finally:
        head.terminate()
        head.wait(timeout=60)


@pytest.fixture(scope="module")
def recipe(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    make_video(folder / "long.mkv", frames=900, fps=30)
    lines = [f'inputs = ["{folder / "long.mkv"}"]', f'out = "{folder / "out"}"', f'encoder = "{tiny_encoder}"']
    lines += ["fps = 2", "clip_frames = 3", "batch_frames = 2", "keep = 0.5", 'device = "cpu"', "unit_clips = 1"]
    lines += ["shard_clips = 1", "[cluster]", "gpu_nodes = 1", "gpus_per_node = 2"]
    (folder / "small.toml").write_text("\n".join(lines) + "\n")
    return folder / "small.toml"


def test_submit_stop_and_submit_again(dashboard: str, recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(recipe), "--address", dashboard, "--no-follow"]) == 0
    job_id = capfd.readouterr().out.strip()
    assert job_id.startswith("vtm-small-")
    assert main(["submit", "--stop", job_id, "--address", dashboard, "--json"]) == 0
    stopped = json.loads(capfd.readouterr().out)
    assert stopped["status"] in ("STOPPED", "SUCCEEDED")
    assert main(["submit", str(recipe), "--address", dashboard]) == 0
    log = capfd.readouterr().out
    assert "20 clips" in log
    assert len(TokenCache(recipe.parent / "out")) == 20
    assert main(["verify", str(recipe.parent / "out")]) == 0


def test_the_exit_code_is_that_of_the_job(dashboard: str, recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = recipe.read_text().replace("long.mkv", "gone.mkv")
    recipe.with_name("gone.toml").write_text(text)
    assert main(["submit", str(recipe.with_name("gone.toml")), "--address", dashboard]) == 2
    captured = capfd.readouterr()
    assert "gone.mkv: no such file or folder" in captured.out
    job_id = captured.err.split("submitted ")[1].split()[0]
    assert main(["submit", "--status", job_id, "--address", dashboard]) == 0
    assert "failed, exit code 2" in capfd.readouterr().out
    assert main(["submit", "--status", "nothing", "--address", dashboard]) == 2
    assert "nothing is not a job of this cluster" in capfd.readouterr().err
