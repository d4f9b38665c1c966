from __future__ import annotations

import dataclasses

import pytest

from vtm import VtmError
from vtm.network import NetworkConfig, NetworkError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "magic"}, "strategy is one of none, naive, .*got 'magic'"),
        ({"task": "ranking"}, "task is one of classification, regression"),
        ({"windows_frames": (4, 6, 12)}, "6 is no multiple of 4"),
        ({"widths": (8, 4)}, "every block has a width and a window"),
        ({"partition_factor": 0}, "partition_factor is at least 1, got 0"),
        ({"merge_share": 1.5}, "merge_share is in"),
        ({"dropout": 1.0}, "dropout in"),
        ({"dropout": float("nan")}, "dropout in"),
        ({"draw_sharpness": float("nan")}, "draw_sharpness is 0 or more and finite, got nan"),
        ({"weight_sharpness": -1.0}, "weight_sharpness is 0 or more and finite, got -1.0"),
    ],
)
def test_impossible_settings_are_named(small_config: NetworkConfig, changes: dict, message: str) -> None:
    with pytest.raises(NetworkError, match=message) as caught:
        dataclasses.replace(small_config, **changes)
    assert isinstance(caught.value, VtmError)
    assert "\n" not in str(caught.value)


def test_auxiliary_factor_is_the_root_of_the_input_width(small_config: NetworkConfig) -> None:
    assert small_config.auxiliary_factor(16) == 0.25
    assert dataclasses.replace(small_config, auxiliary_scale=0.7).auxiliary_factor(16) == 0.7
