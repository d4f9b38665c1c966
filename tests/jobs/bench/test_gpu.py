"""The one command for a GPU: its steps on a CPU, and what it makes of steps that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from jobs.bench.gpu import Step, gpu_steps, small_steps, take
from jobs.bench.gpu_checks import ancestors
from jobs.bench.gpu_profile import busy_share
from jobs.bench.gpu_table import markdown
from jobs.cli import main


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_step_works_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["bench", "gpu", "--dry-run", "--out", str(tmp_path)])
    assert code == 0, capsys.readouterr().out
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [step["outcome"] for step in report["steps"]] == ["passed"] * 10
    names = [row["name"] for step in report["steps"] for row in step["rows"]]
    assert {"plain script", "vtm, inline", "vtm, ray"} <= set(names)
    killed = [row["killed"] for step in report["steps"] for row in step["rows"] if "killed" in row]
    assert killed == [0, 1]
    assert "these figures mean nothing" in (tmp_path / "gpu.md").read_text()


def test_what_is_measured_on_a_gpu_is_rehearsed(tmp_path: Path) -> None:
    names = {step.name.split()[0] for step in gpu_steps(tmp_path / "a.mp4", tmp_path)}
    assert names - {step.name.split()[0] for step in small_steps(tmp_path / "a.mp4", tmp_path)} == {"tests"}


def test_a_step_that_fails_says_why_and_leaves_the_others(tmp_path: Path) -> None:
    failed = take(Step(name="a", command=("-c", "raise SystemExit('no memory')")))
    assert (failed["outcome"], failed["error"]) == ("failed", "no memory")
    late = take(Step(name="b", command=("-c", "import time; time.sleep(60)"), limit_s=0.5))
    assert (late["outcome"], late["error"]) == ("failed", "not done after 0 s")
    left_out = take(Step(name="c", command=(), needs=("no_such_package",)))
    assert left_out["error"] == "no_such_package is not installed"
    shown = take(
        Step(name="d", command=("-c", 'print(\'noise\'); print(\'{"rows": [{"name": "x", "wall_s": 2.5}]}\')'))
    )
    page = markdown({"machine": "GPU 9000", "dry_run": False, "steps": [failed, left_out, shown]})
    assert page.startswith("# GPU 9000")
    assert "no memory" in page
    assert "| x | 2.5 |" in page


def test_a_gpu_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["bench", "gpu"]) == 2
    assert "there is no GPU that torch can use" in capsys.readouterr().err


def test_only_its_own_processes_can_be_killed() -> None:
    """The encoder that is killed is one that the step itself started, however far down."""
    command = ["bash", "-c", "sleep 60 & echo $!; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        sleeping = int(shell.stdout.readline())
        assert list(ancestors(Path(f"/proc/{sleeping}")))[:2] == [shell.pid, os.getpid()]
        assert os.getpid() not in ancestors(Path("/proc") / str(os.getppid()))
        os.kill(sleeping, signal.SIGKILL)
    assert list(ancestors(Path(f"/proc/{sleeping}"))) == []


def test_busy_share() -> None:
    assert busy_share([(0, 2), (1, 3), (6, 7), (6.5, 6.8), (9, 10)]) == pytest.approx(0.5)
