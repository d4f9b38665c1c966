"""The RayJob that `vtm submit --to kuberay` writes.

`KNOWN` names, in our words, the fields of the custom resource (ray.io/v1) that may appear at each place: the API server
drops a misspelt one without a word. Give VTM_KUBERAY_CRD, a file with KubeRay's `ray.io_rayjobs.yaml`, to check against
the whole schema.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cluster.cluster_job import load_job
from jobs.cluster.kuberay import kuberay_objects, kuberay_yaml

RECIPE = Path(__file__).resolve().parents[3] / "jobs" / "recipes" / "cluster.toml"
KNOWN = {
    "spec": "entrypoint submissionMode backoffLimit activeDeadlineSeconds shutdownAfterJobFinishes "
    "ttlSecondsAfterFinished rayClusterSpec runtimeEnvYAML",
    "rayClusterSpec": "rayVersion enableInTreeAutoscaling autoscalerOptions headGroupSpec workerGroupSpecs",
    "headGroupSpec": "rayStartParams template",
    "workerGroupSpecs": "groupName replicas minReplicas maxReplicas rayStartParams template",
}


def misspelt(place: str, value: dict[str, Any]) -> set[str]:
    return set(value) - set(KNOWN[place].split())


def test_the_objects_hold_the_recipe_and_both_groups() -> None:
    config, ray_job = yaml.safe_load_all(kuberay_yaml(load_job(RECIPE)))
    lines = [line.rstrip() for line in RECIPE.read_text().splitlines()]
    assert config["data"]["recipe.toml"].splitlines() == lines
    assert (ray_job["apiVersion"], ray_job["kind"]) == ("ray.io/v1", "RayJob")
    spec = ray_job["spec"]
    cluster = spec["rayClusterSpec"]
    assert not misspelt("spec", spec)
    assert not misspelt("rayClusterSpec", cluster)
    assert not misspelt("headGroupSpec", cluster["headGroupSpec"])
    assert not [name for group in cluster["workerGroupSpecs"] for name in misspelt("workerGroupSpecs", group)]
    words = "--config /etc/vtm/recipe.toml --gpus 32 --wait-for-nodes-s 1800 --accept-failures"
    assert spec["entrypoint"] == f"vtm extract {words}"
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert (groups["gpu"]["minReplicas"], groups["gpu"]["maxReplicas"]) == (0, 4)
    assert (groups["cpu"]["minReplicas"], groups["cpu"]["maxReplicas"]) == (4, 4)
    container = groups["gpu"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert "nvidia.com/gpu" not in groups["cpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    mounted = container["volumeMounts"][0]["name"]
    volume = next(v for v in groups["gpu"]["template"]["spec"]["volumes"] if v["name"] == mounted)
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert container["envFrom"][0]["secretRef"]["name"] == "object-store-credentials"


def test_the_entrypoint_is_one_command_for_a_shell() -> None:
    """KubeRay puts it into a shell script as it is: anything with a meaning there would be run by the submitter."""
    entrypoint = kuberay_objects(load_job(RECIPE))[1]["spec"]["entrypoint"]
    assert not set(entrypoint) & set("|&;$<>()`")


def test_against_the_schema_of_the_custom_resource() -> None:
    path = os.environ.get("VTM_KUBERAY_CRD")
    if not path:
        pytest.skip("VTM_KUBERAY_CRD does not name KubeRay's ray.io_rayjobs.yaml")
    jsonschema = pytest.importorskip("jsonschema")
    versions = yaml.safe_load(Path(path).read_text())["spec"]["versions"]
    schema = closed(next(v for v in versions if v["name"] == "v1")["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    ray_job = kuberay_objects(load_job(RECIPE))[1]
    jsonschema.validate(ray_job, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(ray_job | {"spec": ray_job["spec"] | {"backofLimit": 3}}, schema)


def closed(schema: Any) -> Any:
    """The schema with no room for unknown fields, which Kubernetes drops without a word."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    tight = {name: closed(value) for name, value in schema.items()}
    if tight.get("type") == "object" and "properties" in tight:
        tight.setdefault("additionalProperties", False)
    return tight
