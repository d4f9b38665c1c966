"""How many tokens a network leaves, which its config and the clip's shape decide."""

from __future__ import annotations

from functools import lru_cache

import torch

from vtm.network.config import NetworkConfig
from vtm.network.network import VideoTokenMerging
from vtm.plan import Grid


@lru_cache(maxsize=64)
def tokens_left(config: NetworkConfig, grid: Grid) -> int:
    """M of a clip after all blocks, found by running shapes without values through the network.

    Args:
        config: of the network.
        grid: T, H, W of the source patches.
    """
    num_sources = grid[0] * grid[1] * grid[2]
    with torch.device("meta"):
        network = VideoTokenMerging(config).eval()
        patches_1NC = torch.empty(1, num_sources, config.in_width)
        motion_1N = torch.empty(1, num_sources) if config.strategy == "motion" else None
    with torch.inference_mode():
        tokens_1MC, _ = network.tokens(patches_1NC, grid, motion=motion_1N)
    return tokens_1MC.shape[1]
