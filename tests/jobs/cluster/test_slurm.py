"""The batch script that `vtm submit --to slurm` writes, run by bash with stand-ins for Slurm's and Ray's commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from jobs.cluster.cluster_job import load_job
from jobs.cluster.slurm import slurm_script

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
RECIPE = """inputs = ["/data/it's here"]
out = "/data/out"
keep = 0.5   # $HOME `pwd` "quoted"
[cluster]
gpu_nodes = 3
gpus_per_node = 2
setup = "echo set up >> log"
partition = "gpu"
"""
COMMANDS = {
    "scontrol": 'echo "scontrol $*" >> log; [ "$1" = show ] && printf "n1\\nn2\\nn3\\n"; true',
    "srun": 'echo "srun $*" >> log; while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "ray": 'if [ "$1" = start ]; then trap "exit" TERM; touch up; sleep 60 & wait; fi; [ -e up ]',
    "vtm": 'trap "echo drained >> log; exit 130" TERM; echo "vtm $*" >> log; touch running; cp "$3" seen.toml\n'
    'until grep -q nodes=2 log; do sleep 0.1; done; [ -e quick ] && exit "$(cat quick)"; sleep 60 & wait',
}


@pytest.fixture
def script(tmp_path: Path) -> subprocess.Popen[bytes]:
    (tmp_path / "bin").mkdir()
    for name, body in COMMANDS.items():
        command = tmp_path / "bin" / name
        command.write_text(f"#!/bin/bash\n{body}\n")
        command.chmod(0o755)
    (tmp_path / "films.toml").write_text(RECIPE)
    (tmp_path / "job.sh").write_text(slurm_script(load_job(tmp_path / "films.toml")))
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    return lambda: subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=environment)  # type: ignore[return-value]


def await_file(path: Path) -> None:
    until_s = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until_s, f"{path} never came"
        time.sleep(0.05)


def test_bash_accepts_it_and_slurm_reads_its_head(tmp_path: Path, script: object) -> None:
    assert subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=False).returncode == 0
    head = [line for line in (tmp_path / "job.sh").read_text().splitlines() if line.startswith("#SBATCH")]
    for option in ("--nodes=3", "--gpus-per-node=2", "--signal=B:TERM@120", "--requeue", "--partition=gpu"):
        assert f"#SBATCH {option}" in head


@pytest.mark.parametrize("code", [0, 1])
def test_it_starts_ray_everywhere_runs_and_passes_the_exit_code_on(code: int, tmp_path: Path, script) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "quick").write_text(str(code))
    assert script().wait(timeout=60) == code
    log = (tmp_path / "log").read_text()
    assert log.startswith("set up")
    assert "srun --overlap --nodes=1 --ntasks=1 --nodelist=n1 ray start --head --port=20077" in log
    assert "srun --overlap --nodes=2 --ntasks=2 --exclude=n1 ray start --address=n1:20077" in log
    assert f"vtm extract --config {tmp_path}/vtm-films-77.toml --gpus 6 --wait-for-nodes-s 1800" in log
    assert (tmp_path / "seen.toml").read_text() == RECIPE
    assert "requeue" not in log


def test_a_signal_drains_the_run_and_requeues_the_job(tmp_path: Path, script) -> None:  # type: ignore[no-untyped-def]
    process = script()
    await_file(tmp_path / "running")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    log = (tmp_path / "log").read_text()
    assert "drained" in log
    assert "scontrol requeue 77" in log
