"""The house: who may import whom. Checked on the source, so that a lazy import counts as well."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vtm", "pipeline", "jobs")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def users_of(name: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if any(module == name or module.startswith(f"{name}.") for module in imports(path))
    }


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 40


@pytest.mark.parametrize(("package", "forbidden"), [("vtm", {"pipeline", "jobs"}), ("pipeline", {"jobs"})])
def test_imports_never_run_back(package: str, forbidden: set[str]) -> None:
    guilty = {
        (path.relative_to(ROOT).as_posix(), module)
        for path in FILES
        if path.relative_to(ROOT).parts[0] == package
        for module in imports(path)
        if module.split(".")[0] in forbidden
    }
    assert not guilty


@pytest.mark.parametrize("package", PACKAGES)
def test_product_never_imports_tests(package: str) -> None:
    assert not {user for user in users_of("tests") if user.startswith(package)}


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("av", "pipeline/video/"),
        ("ray", ("pipeline/engine/ray_", "jobs/cluster/ray_jobs.py")),
        (
            "pyarrow",
            (
                "pipeline/shards/",
                "pipeline/cache/",
                "pipeline/export/",
                "pipeline/plan/",
                "pipeline/inputs/parquet_list.py",
            ),
        ),
        ("faiss", "pipeline/search/coarse_index.py"),
        ("lancedb", "pipeline/export/lance.py"),
        ("qdrant_client", "pipeline/export/qdrant.py"),
        ("transformers", ("pipeline/encode/foreign/library.py", "pipeline/consumers/outputs.py")),
    ],
)
def test_each_heavy_library_has_one_home(library: str, home: str | tuple[str, ...]) -> None:
    homes = (home,) if isinstance(home, str) else home
    outside = {
        user for user in users_of(library) if not user.startswith((*homes, "jobs/bench/", "jobs/training/labels/"))
    }
    assert users_of(library)
    assert not outside


def test_vtm_imports_torch_and_little_else() -> None:
    allowed = {"torch", "numpy", "safetensors", "PIL", "vtm"} | set(sys.stdlib_module_names)
    # The hub client and its tokenizers are optional and imported where they are used.
    optional = {"huggingface_hub", "tokenizers"}
    found = {module.split(".")[0] for path in FILES if path.parts[-2] != "jobs" for module in _vtm_imports(path)}
    assert found <= allowed | optional


def _vtm_imports(path: Path) -> Iterator[str]:
    if path.relative_to(ROOT).parts[0] == "vtm":
        yield from imports(path)


def test_decode_imports_nothing_of_vtm() -> None:
    assert not {user for user in users_of("vtm") if user.startswith("pipeline/video/")}
    assert not {user for user in users_of("torch") if user.startswith("pipeline/video/")} - {
        "pipeline/video/resize.py",
        "pipeline/video/motion.py",
        "pipeline/video/colour.py",
        "pipeline/video/nvdec.py",
        "pipeline/video/torch_picture.py",
    }


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import pipeline", ("torch", "pyarrow", "ray", "av")),
        ("import pipeline.video", ("ray", "pyarrow", "vtm")),
        ("import pipeline.engine.inline_executor", ("ray", "transformers")),
        ("import jobs.cli", ("torch", "ray", "av")),
        ("import pipeline.consumers", ("transformers", "ray", "av")),
    ],
)
def test_nothing_heavy_is_loaded_unasked(statement: str, unwanted: tuple[str, ...]) -> None:
    code = f"{statement}; import sys; print([name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
