from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from vtm.network import NetworkConfig, VideoTokenMerging

SMALL = NetworkConfig(
    in_width=11,
    outputs=3,
    widths=(9, 7, 5),
    windows_frames=(1, 3, 6),
    partition_factor=4,
    heads=2,
    head_width=5,
    attention="plain",
)


@pytest.fixture
def small_config() -> NetworkConfig:
    return SMALL


@pytest.fixture
def make_network() -> Callable[..., VideoTokenMerging]:
    """A float64 network of odd sizes with settings changed by name, ready for inference, the same at every call."""

    def make(**changes: object) -> VideoTokenMerging:
        torch.manual_seed(5)
        return VideoTokenMerging(dataclasses.replace(SMALL, **changes)).double().eval()

    return make
