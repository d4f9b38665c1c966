"""Connecting to a Ray cluster, or starting one here; its GPUs, and the device of its encoders."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray.exceptions import GetTimeoutError, NodeDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.counted import counted
from pipeline.encode.devices import Device, DeviceKind, agree, this_device
from pipeline.engine.events import NodeUp
from pipeline.engine.executor import Executor
from pipeline.engine.job import Job
from pipeline.engine.placement import ResourceRequest
from pipeline.engine.ray_executor import RayExecutor, living_nodes
from pipeline.engine.worker_types import REAL, WorkerTypes
from pipeline.errors import SettingsError
from pipeline.settings import Execution
from pipeline.values import DecoderName

log = logging.getLogger(__name__)
LOCAL_STORE_BYTES = 2 << 30
UNREAD = {"enable_metrics_collection": False, "task_events_report_interval_ms": 0, "event_stats": False}
"""What Ray records of itself. Nobody reads it of a Ray that lives as long as the run, and it takes cores."""
LOCAL: dict[str, Any] = {
    "include_dashboard": False,
    "object_store_memory": LOCAL_STORE_BYTES,
    "_system_config": UNREAD,
}
START_ATTEMPTS = 3
"""Ray gives a node 30 seconds to start, which may be too few on a busy machine."""
PROBE_S = 300.0
"""How long a node may take to load torch and look at its device."""
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Of the workers: waiting threads of an encoder must not spin on the cores that decoders share."""


class RayCluster:
    """A cluster that this process is connected to, started here if no address was given.

    Raises:
        SettingsError: it cannot be reached, or can never hold what is requested.
    """

    def __init__(self, execution: Execution, decoder: DecoderName = "libav") -> None:
        self._decodes_on_gpus = decoder == "nvdec"
        self._owns_ray = not ray.is_initialized()
        self._has_requested = False
        address = execution.address or os.environ.get("RAY_ADDRESS")
        if self._owns_ray:
            connect(address)
        try:
            nodes = self._await_gpus(execution)
            self._reserves = takes_gpus(execution, nodes)
            self.request = ResourceRequest(
                decoders=execution.workers,
                gpus=execution.gpus,
                gpu_share=execution.gpu_share,
                reserve_gpus=self._reserves,
                decode_on_gpus=self._decodes_on_gpus,
            )
            kind: DeviceKind = "cuda" if self._reserves and execution.device != "cpu" else "cpu"
            self.device = self._agree(kind, nodes, execution)
        except BaseException:
            self.close()
            raise

    def executor(self, job: Job, types: WorkerTypes = REAL) -> Executor:
        """Actors."""
        return RayExecutor(job, types)

    def close(self) -> None:
        """Disconnect, and end Ray where it was started here."""
        if self._has_requested:
            with contextlib.suppress(RayError):
                self._request_gpus(0)
        if self._owns_ray:
            ray.shutdown()

    def _await_gpus(self, execution: Execution) -> list[NodeUp]:
        """The nodes, once they have the requested GPUs; waits only with `--wait-for-nodes-s`."""
        until_s = time.monotonic() + execution.wait_for_nodes_s
        while True:
            nodes = list(living_nodes().values())
            complaint = lacks(execution, nodes, decodes_on_gpus=self._decodes_on_gpus)
            if complaint is None:
                return nodes
            if time.monotonic() > until_s:
                raise SettingsError(complaint)
            self._request_gpus(max(gpus_wanted(execution), int(self._decodes_on_gpus)))
            time.sleep(1.0)

    def _request_gpus(self, count: int) -> None:
        """Have an autoscaler keep so many GPUs; a request stands until the next one."""
        from ray.autoscaler.sdk import request_resources

        self._has_requested = bool(count)
        request_resources(bundles=[{"GPU": 1}] * count)

    def _agree(self, kind: DeviceKind, nodes: list[NodeUp], execution: Execution) -> Device:
        """Ask every node that will encode for its device; this machine alone needs no question."""
        encoding = [node for node in nodes if node.gpus] if self._reserves else nodes
        here = ray.get_runtime_context().get_node_id()
        if [node.node for node in encoding] == [here]:
            return this_device(kind)
        share = execution.gpu_share if self._reserves else 0.0
        asked = {node.node: _probe(node.node, share).remote(kind) for node in encoding}
        answers = [_answer(node, ref) for node, ref in asked.items()]
        found = [device for device in answers if device is not None]
        if not found:
            raise SettingsError("not one node of the cluster could say what it computes on: look at `ray status`")
        return agree(found)


def _answer(node: str, ref: Any) -> Device | None:
    """The device of a node; None where the node is gone meanwhile.

    Raises:
        SettingsError: the node has no such device, or cannot be asked.
    """
    try:
        device: Device = ray.get(ref, timeout=PROBE_S)
    except NodeDiedError:
        return None
    except GetTimeoutError as error:
        raise SettingsError(
            f"node {node} did not say within {PROBE_S:.0f} s what it computes on: see `ray status` whether other jobs "
            "hold its GPUs"
        ) from error
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, SettingsError):
            raise cause from None
        if node not in living_nodes():
            return None
        text = str(error).strip().splitlines()[0]
        raise SettingsError(f"node {node} cannot be asked for its device: {text}") from error
    return device


def _probe(node: str, gpu_share: float) -> Any:
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": gpu_share,
        "max_retries": 2,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    return ray.remote(this_device).options(**options)


def takes_gpus(execution: Execution, nodes: list[NodeUp]) -> bool:
    """Whether encoders reserve GPUs."""
    if execution.gpus == 0 or (execution.device == "cpu" and not execution.gpus):
        return False
    return execution.device == "cuda" or bool(execution.gpus) or any(node.gpus for node in nodes)


def gpus_wanted(execution: Execution) -> int:
    """Number of GPUs that the cluster must have."""
    return execution.gpus if execution.gpus is not None else int(execution.device == "cuda")


def lacks(execution: Execution, nodes: list[NodeUp], *, decodes_on_gpus: bool = False) -> str | None:
    """The error in one line if the cluster has fewer GPUs than requested."""
    wanted, there = gpus_wanted(execution), sum(node.gpus for node in nodes)
    if decodes_on_gpus and not there:
        return (
            f"--decoder nvdec: the cluster has no GPU on {counted(len(nodes), 'node')}: leave it out, or give "
            "--wait-for-nodes-s 600 where an autoscaler adds nodes"
        )
    if wanted > there:
        advice = "--device cpu, or --gpus 0" if not there else f"at most --gpus {there}"
        asked = "--device cuda" if execution.gpus is None else f"--gpus {wanted}"
        return (
            f"{asked}: the cluster has {counted(there, 'GPU')} on {counted(len(nodes), 'node')}: give {advice}, or "
            "--wait-for-nodes-s 600 where an autoscaler adds nodes"
        )
    return None


def quieten() -> None:
    """Log what Ray prints of workers that died, instead of mixing it into standard output.

    This project reports dead workers itself, with the clip that failed. Ray has no switch for these lines.
    """
    if hasattr(ray_worker, "print_to_stdstream"):
        ray_worker.print_to_stdstream = lambda data, **_: log.debug("%s", " ".join(data["lines"]))


def connect(address: str | None) -> None:
    """Join the cluster at an address; without one start Ray on this machine, whatever else runs here.

    Raises:
        SettingsError: that fails.
    """
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "runtime_env": {"env_vars": ENVIRONMENT}}
    # Without "local", Ray would join one that runs on this machine already, or look for a dead one.
    where = {"address": address or "local"} | ({} if address else LOCAL)
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(**where, **quiet)
            break
        except Exception as error:  # Ray raises a bare Exception where a node does not start in time.
            ray.shutdown()
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if address:
                raise SettingsError(f"--address {address} cannot be reached: {reason}") from error
            if attempt == START_ATTEMPTS:
                advice = "try again when the machine is less busy, or give --engine inline"
                raise SettingsError(f"Ray on this machine cannot be started ({advice}): {reason}") from error
    quieten()
