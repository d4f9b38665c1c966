"""A recipe file to a job: what it extracts, and the `[cluster]` table, which describes where."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.errors import SettingsError
from pipeline.nearest_name import nearest
from pipeline.read_settings import load_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATHS = ("encoder", "scorer", "out")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTable:
    """The `[cluster]` table of a recipe."""

    address: str = ""
    """Dashboard of a running Ray cluster, such as http://head:8265."""
    image: str = ""
    """Container image with vtm-pipeline installed (KubeRay)."""
    packages: tuple[str, ...] = ()
    """Packages that Ray installs with pip on every node before the job starts."""
    secret: str = ""
    """Kubernetes secret whose keys become environment variables, for the object store's credentials (KubeRay)."""
    setup: str = ""
    """Shell commands before the job starts on a node, such as activating an environment (Slurm)."""
    partition: str = ""
    """Partition to queue in (Slurm)."""
    gpu_nodes: int = 0
    """Nodes with GPUs. With KubeRay they are added when the job starts and removed when it ends."""
    gpus_per_node: int = 1
    """GPUs of each of them."""
    gpu_node_cores: int = 16
    """Cores of each of them."""
    gpu_node_memory_gb: int = 64
    """Memory of each of them, in GB."""
    cpu_nodes: int = 0
    """Nodes that only decode (KubeRay)."""
    cpu_node_cores: int = 16
    """Cores of each of them."""
    cpu_node_memory_gb: int = 32
    """Memory of each of them, in GB."""
    hours: int = 24
    """Time limit of the job, in hours."""
    retries: int = 3
    """How often a job that fails is started again; it resumes (KubeRay)."""

    def __post_init__(self) -> None:
        for name in ("gpu_nodes", "cpu_nodes", "retries"):
            if getattr(self, name) < 0:
                raise SettingsError(f"[cluster] {name} = {getattr(self, name)} must be 0 or more")
        for name in ("gpus_per_node", "gpu_node_cores", "gpu_node_memory_gb", "cpu_node_cores", "cpu_node_memory_gb"):
            if getattr(self, name) < 1:
                raise SettingsError(f"[cluster] {name} = {getattr(self, name)} must be 1 or more")
        if self.hours < 1:
            raise SettingsError(f"[cluster] hours = {self.hours} must be 1 or more")

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return self.gpu_nodes * self.gpus_per_node


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJob:
    """A recipe file that is to run on a cluster."""

    name: str
    """From the file's name: lower case letters, digits and hyphens."""
    recipe: str
    """The file's text."""
    settings: dict[str, Any]
    table: ClusterTable

    def arguments(self, recipe_path: str) -> list[str]:
        """Arguments of `vtm` for this job; local paths of the recipe become absolute."""
        inputs = [_absolute(text) for text in self.inputs]
        words = ["extract", *([] if inputs == self.inputs else inputs), "--config", recipe_path]
        for name in PATHS:
            value = str(self.settings.get(name, ""))
            if _absolute(value) != value:
                words += [f"--{name}", _absolute(value)]
        return words

    def gpu_arguments(self) -> list[str]:
        """Arguments that make the job wait for the GPUs of the `[cluster]` table."""
        if not self.table.gpus or "gpus" in self.settings:
            return []
        return ["--gpus", str(self.table.gpus), "--wait-for-nodes-s", "1800"]

    @property
    def inputs(self) -> list[str]:
        """Inputs, as the recipe names them."""
        found = self.settings.get("inputs", [])
        return [found] if isinstance(found, str) else [str(text) for text in found]

    def line(self, recipe_path: str) -> str:
        """The command of the run. Recorded failures do not fail the job: another try would end the same."""
        words = [*self.arguments(recipe_path), *self.gpu_arguments(), "--accept-failures"]
        return f"vtm {shlex.join(words)}"


def load_job(path: Path) -> ClusterJob:
    """Read a recipe with its `[cluster]` table.

    Raises:
        SettingsError: it cannot be read, lacks inputs or out, or holds a name that is not a setting.
    """
    settings = load_toml(path)
    text = path.read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text).get("cluster", {})
    for name in ("inputs", "out"):
        if not settings.get(name):
            raise SettingsError(f"{path}: {name} is missing: a job that is submitted names its inputs and its output")
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "run"
    return ClusterJob(name=f"vtm-{name}"[:40].strip("-"), recipe=text, settings=settings, table=_table(path, table))


def _table(path: Path, values: dict[str, Any]) -> ClusterTable:
    known = {field.name: str(field.type) for field in fields(ClusterTable)}
    for name, value in values.items():
        if name not in known:
            hint = nearest(name, known).strip() or f"known are {', '.join(known)}"
            raise SettingsError(f"{path}: [cluster] {name} is not a setting: {hint}")
        kind = {"int": int, "str": str}.get(known[name], list)
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = {int: "a whole number", str: "text", list: "a list of texts"}[kind]
            raise SettingsError(f"{path}: [cluster] {name} = {value!r} has the wrong type: write {wanted}")
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return ClusterTable(**given)


def _absolute(text: str) -> str:
    """A local path as it is found from any directory; addresses and hub ids stay as they are."""
    if not text or "://" in text or text.startswith("/"):
        return text
    path = Path(text).expanduser()
    is_local = path.exists() or (path.parent.exists() and ("/" not in text or text.startswith(("./", "../", "~"))))
    return str(path.absolute()) if is_local else text
