"""A job as Kubernetes objects for KubeRay: a ConfigMap with the recipe, and a RayJob that runs it.

Field names follow the RayJob custom resource of KubeRay (ray.io/v1).
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from typing import Any

import yaml

from jobs.cluster.cluster_job import ClusterJob, ClusterTable
from pipeline.errors import SettingsError

MOUNT = "/etc/vtm"
KEEP_S = 3600
"""The cluster of a job that has ended is removed after this long."""
HEAD_MEMORY_GB, HEAD_CORES = 8, 2


class Dumper(yaml.SafeDumper):
    """Writes text of several lines as it is read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, _text)


def kuberay_yaml(job: ClusterJob) -> str:
    """The objects as YAML documents, for `kubectl apply -f -`."""
    # Spaces before a line's end would make YAML fall back to quoted text.
    tidy = replace(job, recipe="".join(f"{line.rstrip()}\n" for line in job.recipe.splitlines()))
    return str(yaml.dump_all(kuberay_objects(tidy), Dumper=Dumper, sort_keys=False, explicit_start=True, width=1000))


def kuberay_objects(job: ClusterJob) -> list[dict[str, Any]]:
    """The objects, to be applied in this order.

    Raises:
        SettingsError: the `[cluster]` table lacks what Kubernetes needs.
    """
    table = job.table
    if not table.image:
        raise SettingsError("[cluster] image is missing: name a container image in which vtm-pipeline is installed")
    if not table.gpu_nodes and not table.cpu_nodes:
        raise SettingsError("[cluster] has no nodes: give gpu_nodes, cpu_nodes or both")
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{job.name}-recipe"},
        "data": {"recipe.toml": job.recipe},
    }
    spec: dict[str, Any] = {
        "entrypoint": job.line(f"{MOUNT}/recipe.toml"),
        "submissionMode": "K8sJobMode",
        "backoffLimit": table.retries,
        "activeDeadlineSeconds": table.hours * 3600,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEEP_S,
        "rayClusterSpec": {
            "rayVersion": importlib.metadata.version("ray"),
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": {"idleTimeoutSeconds": 120},
            "headGroupSpec": {
                # The head runs the scheduler of the run; without cores for Ray no worker is placed there.
                "rayStartParams": {"num-cpus": "0"},
                "template": _pod(job, "ray-head", HEAD_CORES, HEAD_MEMORY_GB),
            },
            "workerGroupSpecs": _groups(job, table),
        },
    }
    if table.packages:
        spec["runtimeEnvYAML"] = "pip:\n" + "".join(f"  - {package!r}\n" for package in table.packages)
    ray_job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": job.name}, "spec": spec}
    return [config, ray_job]


def _groups(job: ClusterJob, table: ClusterTable) -> list[dict[str, Any]]:
    groups = []
    if table.gpu_nodes:
        pod = _pod(job, "ray-worker", table.gpu_node_cores, table.gpu_node_memory_gb, table.gpus_per_node)
        # The run asks the autoscaler for its GPUs when it starts.
        groups.append(_group("gpu", 0, table.gpu_nodes, pod))
    if table.cpu_nodes:
        pod = _pod(job, "ray-worker", table.cpu_node_cores, table.cpu_node_memory_gb)
        groups.append(_group("cpu", table.cpu_nodes, table.cpu_nodes, pod))
    return groups


def _group(name: str, least: int, most: int, pod: dict[str, Any]) -> dict[str, Any]:
    return {
        "groupName": name,
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": {},
        "template": pod,
    }


def _pod(job: ClusterJob, name: str, cores: int, memory_gb: int, gpus: int = 0) -> dict[str, Any]:
    amounts = {"cpu": str(cores), "memory": f"{memory_gb}G"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    container: dict[str, Any] = {
        "name": name,
        "image": job.table.image,
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "volumeMounts": [
            {"name": "recipe", "mountPath": MOUNT, "readOnly": True},
            # Ray's object store is shared memory; the default of 64 MB would move it to disk.
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
    if job.table.secret:
        container["envFrom"] = [{"secretRef": {"name": job.table.secret}}]
    volumes = [
        {"name": "recipe", "configMap": {"name": f"{job.name}-recipe"}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{max(1, memory_gb // 3)}G"}},
    ]
    # Long enough to write what is complete when the node is taken away.
    return {"spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 60}}
