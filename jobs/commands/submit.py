"""`vtm submit`: a recipe on a Ray cluster, or written as a job for KubeRay or Slurm."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from jobs.cluster.cluster_job import ClusterJob, load_job
from pipeline.errors import SettingsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe, and where it goes."""
    add = parser.add_argument
    add("recipe", nargs="?", type=Path, metavar="RECIPE.toml", help="settings, inputs, out and a [cluster] table")
    add("--address", metavar="URL", help="Ray dashboard, such as http://head:8265 (default: that of the recipe)")
    add("--to", choices=("kuberay", "slurm"), help="print the job for this system instead of submitting it")
    add("--no-follow", action="store_true", help="submit, print the job's id, and return")
    add("--follow", metavar="ID", help="follow the log of a job that was submitted before")
    add("--status", metavar="ID", help="print the status of a job")
    add(
        "--stop", metavar="ID", help="stop a job; what is committed is kept, and submitting the recipe again resumes it"
    )
    add("--json", action="store_true", help="print the status as JSON")


def run(options: argparse.Namespace) -> int:
    """Submit and follow; returns the exit code of the job."""
    actions = [name for name in ("follow", "status", "stop") if getattr(options, name)]
    if len(actions) + (options.recipe is not None) != 1:
        raise SettingsError("give either a recipe, or one of --follow ID, --status ID and --stop ID")
    job = load_job(options.recipe) if options.recipe is not None else None
    if options.to:
        if job is None:
            raise SettingsError(f"--to {options.to} needs a recipe")
        print(_written(job, options.to), end="")
        return 0
    # Ray's client is loaded only where a cluster is asked.
    from jobs.cluster import ray_jobs

    client = ray_jobs.client_of(options.address or (job.table.address if job else "") or None)
    if options.status:
        return _print_status(ray_jobs.status_of(client, options.status), as_json=options.json)
    if options.stop:
        return _print_status(ray_jobs.stop(client, options.stop), as_json=options.json)
    job_id: str = options.follow
    if job is not None:
        job_id = ray_jobs.submit(client, job)
        print(f"submitted {job_id}", file=sys.stderr)
        if options.no_follow:
            print(job_id)
            return 0
    try:
        return ray_jobs.exit_code_of(ray_jobs.follow(client, job_id, ray_jobs.write_out))
    except KeyboardInterrupt:
        print(f"the job goes on: `vtm submit --follow {job_id}` or `vtm submit --stop {job_id}`", file=sys.stderr)
        return 130


def _print_status(found: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        code = "" if found["exit_code"] is None else f", exit code {found['exit_code']}"
        print(
            f"{found['job_id']}: {found['status'].lower()}{code}"
            + (f" ({found['message']})" if found["message"] else "")
        )
    return 0


def _written(job: ClusterJob, system: str) -> str:
    if system == "slurm":
        from jobs.cluster.slurm import slurm_script

        return slurm_script(job)
    from jobs.cluster.kuberay import kuberay_yaml

    return kuberay_yaml(job)
