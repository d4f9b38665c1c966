"""Jobs on a Ray cluster through its job API: submit, follow, stop, status."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.cluster.cluster_job import ClusterJob
from pipeline.errors import EngineError, SettingsError

PACKAGES = ("vtm", "pipeline", "jobs")
RECIPE = "recipe.toml"
DASHBOARD = "http://127.0.0.1:8265"
DRAIN_S = 30
"""How long a job that is stopped has to write what is complete, before Ray kills it."""
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
POLL_S = 1.0


def client_of(address: str | None) -> Any:
    """A client of the cluster's job API.

    Args:
        address: Of the dashboard, such as http://head:8265; None: RAY_API_SERVER_ADDRESS or RAY_ADDRESS, else this
            machine.

    Raises:
        SettingsError: it is no address of a dashboard, nothing answers there, or the package for it is missing.
    """
    if address is not None and not address.startswith(("http://", "https://")):
        # Ray would take it for the address of a cluster, and wait for it for most of a minute.
        raise SettingsError(f"--address {address} is no address of a Ray dashboard: give one such as http://head:8265")
    try:
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise SettingsError(
            f"vtm submit needs the extra `cluster` ({error.name} is missing): install ray[default]"
        ) from error
    try:
        client = JobSubmissionClient(address)
        client.get_version()
        return client
    except RayError as error:
        raise SettingsError(
            f"--address {address or DASHBOARD} refuses this client: set RAY_AUTH_MODE=token if the cluster uses a "
            f"token ({str(error).splitlines()[0]})"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"--address {address or DASHBOARD} cannot be reached: give the address of the Ray dashboard, "
            f"such as http://head:8265 ({str(error).splitlines()[0]})"
        ) from error


def submit(client: Any, job: ClusterJob) -> str:
    """Pack this project and the recipe as the job's working directory, and submit it. Returns the job's id."""
    words = [*job.arguments(RECIPE), *job.gpu_arguments()]
    environment: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(DRAIN_S), "PYTHONUNBUFFERED": "1"}}
    if job.table.packages:
        environment["pip"] = list(job.table.packages)
    with packed(job) as folder:
        try:
            job_id: str = client.submit_job(
                entrypoint=f"python -m jobs.cli {shlex.join(words)}",
                submission_id=f"{job.name}-{time.strftime('%Y%m%d-%H%M%S')}",
                runtime_env=environment | {"working_dir": str(folder)},
                metadata={"recipe": job.name},
            )
        except RuntimeError as error:
            raise EngineError(f"the cluster refused the job: {' '.join(str(error).split())[:300]}") from error
    return job_id


@contextmanager
def packed(job: ClusterJob) -> Iterator[Path]:
    """A folder with this project's code and the recipe; Ray uploads it once for the same content."""
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory(prefix="vtm-submit-") as name:
        folder = Path(name)
        for package in PACKAGES:
            shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        (folder / RECIPE).write_text(job.recipe, encoding="utf-8")
        yield folder


def status_of(client: Any, job_id: str) -> dict[str, Any]:
    """Status, message, times and exit code of a job.

    Raises:
        SettingsError: the cluster knows no such job.
    """
    try:
        info = client.get_job_info(job_id)
    except RuntimeError as error:
        raise SettingsError(f"{job_id} is not a job of this cluster: `ray job list` lists them") from error
    return {
        "job_id": job_id,
        "status": str(getattr(info.status, "value", info.status)),
        "message": info.message or "",
        "start_time_ms": info.start_time,
        "end_time_ms": info.end_time,
        "exit_code": info.driver_exit_code,
    }


def follow(client: Any, job_id: str, write: Callable[[str], None]) -> dict[str, Any]:
    """Pass the job's log on until it ends; a connection that is lost is made again. Returns its status."""
    written = 0
    while True:
        try:
            written = asyncio.run(_tail(client, job_id, write, written))
        except (OSError, RuntimeError, asyncio.TimeoutError):
            # The dashboard restarts or the network is gone for a moment: the job goes on without this client.
            time.sleep(POLL_S)
        found = status_of(client, job_id)
        if found["status"] in ENDED:
            rest = client.get_job_logs(job_id)
            write(rest[written:])
            return found
        time.sleep(POLL_S)


async def _tail(client: Any, job_id: str, write: Callable[[str], None], skip: int) -> int:
    """The log from its start, without the first `skip` characters. Returns how many characters it had."""
    seen = 0
    async for text in client.tail_job_logs(job_id):
        new = text[max(0, skip - seen) :]
        seen += len(text)
        if new:
            write(new)
    return max(seen, skip)


def stop(client: Any, job_id: str) -> dict[str, Any]:
    """Stop a job, which then writes what is complete, and wait for its end. Returns its status."""
    status_of(client, job_id)
    client.stop_job(job_id)
    until_s = time.monotonic() + DRAIN_S + 15
    while (found := status_of(client, job_id))["status"] not in ENDED and time.monotonic() < until_s:
        time.sleep(POLL_S)
    return found


def exit_code_of(found: dict[str, Any]) -> int:
    """The exit code of a job that has ended, as if its command had run here."""
    if found["status"] == "STOPPED":
        return 130
    if found["exit_code"] is not None:
        return int(found["exit_code"])
    return 0 if found["status"] == "SUCCEEDED" else 1


def write_out(text: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
