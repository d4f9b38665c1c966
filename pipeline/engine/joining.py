"""Whether a worker may join a run: its node has the driver's code, and sees the driver's run folder."""

from __future__ import annotations

from pipeline.engine.job import Job, code_sha256
from pipeline.errors import SettingsError


def check_code(job: Job) -> None:
    """Refuse to mix two versions of the project in one run.

    Raises:
        SettingsError: this machine has other code than the driver.
    """
    if code_sha256() != job.code_sha256:
        raise SettingsError(
            f"this node's vtm-pipeline (code {code_sha256()[:12]}) differs from the driver's ({job.code_sha256[:12]}): "
            "install the same version on every node"
        )


def check_folder(job: Job) -> None:
    """Refuse to write where nobody looks.

    Raises:
        SettingsError: this machine does not see the run folder that the driver opened.
    """
    from pipeline.errors import RunFolderError
    from pipeline.shards.run_folder import read_run

    try:
        held = read_run(job.out)["fingerprint"]
    except RunFolderError:
        held = None
    if held != job.run["fingerprint"]:
        raise SettingsError(f"--out {job.out.address} is not shared with this node: name a folder that every node sees")
