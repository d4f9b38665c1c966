"""Where a run takes place: this process, or Ray; and what its encoders compute on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from pipeline.encode.devices import Device, this_device
from pipeline.engine.executor import Executor
from pipeline.engine.job import Job
from pipeline.engine.placement import ResourceRequest
from pipeline.engine.workers import REAL, WorkerTypes
from pipeline.errors import SettingsError
from pipeline.settings import Execution


class Cluster(Protocol):
    """Nodes that are there, and what was agreed for them."""

    device: Device
    request: ResourceRequest

    def executor(self, job: Job, types: WorkerTypes = REAL) -> Executor:
        """What carries a run out here."""


@contextmanager
def open_cluster(execution: Execution) -> Iterator[Cluster]:
    """Reach what the settings name; Ray is imported only when it is used.

    Raises:
        SettingsError: it cannot be reached, or can never hold what is asked.
    """
    if execution.engine == "inline":
        yield InlineCluster(execution)
        return
    from pipeline.engine.ray_cluster import RayCluster

    cluster = RayCluster(execution)
    try:
        yield cluster
    finally:
        cluster.close()


class InlineCluster:
    """This process."""

    def __init__(self, execution: Execution) -> None:
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        wanted = 1 if execution.gpus is None else execution.gpus
        on_gpu = execution.device == "cuda" or (execution.device == "auto" and bool(found and wanted))
        if execution.gpus and execution.device != "cpu" and execution.gpus > min(found, 1):
            raise SettingsError(
                f"--gpus {execution.gpus}: --engine inline uses {'one GPU' if found else 'no GPU on this machine'}"
                f"{'; use --engine ray for more' if found else ''}"
            )
        self.device = this_device("cuda" if on_gpu else "cpu")
        self.request = ResourceRequest(decoders=execution.workers, gpus=1 if on_gpu else 0)

    def executor(self, job: Job, types: WorkerTypes = REAL) -> Executor:
        """Threads."""
        from pipeline.engine.inline_executor import InlineExecutor

        return InlineExecutor(job, types)
