"""Where a run takes place: in this process or on Ray; and the device of its encoders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from pipeline.encode.devices import Device, this_device
from pipeline.engine.executor import Executor
from pipeline.engine.job import Job
from pipeline.engine.placement import ResourceRequest
from pipeline.engine.worker_types import REAL, WorkerTypes
from pipeline.errors import SettingsError
from pipeline.settings import EngineName, Execution
from pipeline.values import DecoderName


class Cluster(Protocol):
    """The present nodes, and what was agreed for them."""

    device: Device
    request: ResourceRequest

    def executor(self, job: Job, types: WorkerTypes = REAL) -> Executor:
        """The executor of a run here."""


@contextmanager
def open_cluster(execution: Execution, decoder: DecoderName = "libav") -> Iterator[Cluster]:
    """Connect to what the settings name; Ray is imported only when it is used.

    Args:
        execution: the engine, and what is requested of it.
        decoder: what decodes; `nvdec` needs GPUs.

    Raises:
        SettingsError: it cannot be reached, or can never hold what is requested.
    """
    if chosen_engine(execution) == "inline":
        yield InlineCluster(execution, decoder)
        return
    from pipeline.engine.ray_cluster import RayCluster

    cluster = RayCluster(execution, decoder)
    try:
        yield cluster
    finally:
        cluster.close()


def chosen_engine(execution: Execution) -> EngineName:
    """The engine that `auto` means: this process, unless a cluster is named or several GPUs are to be used.

    A run in this process starts sooner and hands frames on without copying them (`vtm bench pipeline`); Ray isolates
    every worker in a process of its own.
    """
    if execution.engine != "auto":
        return execution.engine
    if execution.address is not None or os.environ.get("RAY_ADDRESS") or execution.wait_for_nodes_s:
        return "ray"
    gpus = execution.gpus if execution.gpus is not None or execution.device == "cpu" else torch.cuda.device_count()
    return "ray" if (gpus or 0) > 1 else "inline"


class InlineCluster:
    """This process."""

    def __init__(self, execution: Execution, decoder: DecoderName) -> None:
        if decoder == "nvdec":
            from pipeline.video import gpu_of_nvdec

            gpu_of_nvdec()
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
