from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from vtm.network import NetworkConfig, VideoTokenMerging
from vtm.training import ClipBatch, TrainingTask, figures, labelled_objective, predict_videos

GRID = (4, 2, 3)


def clip_batches(epoch: int, *, batches: int = 3, size: int = 5) -> Iterator[ClipBatch]:
    """Clips whose class is the sign of one channel, the same whenever an epoch is asked for."""
    generator = torch.Generator().manual_seed(epoch)
    for index in range(batches):
        patches = torch.randn(size, 24, 7, generator=generator)
        target = (torch.arange(size) + index) % 2
        patches[..., 0] += 2.0 * target[:, None] - 1
        seeds = tuple(epoch * 1000 + index * size + i for i in range(size))
        yield ClipBatch(patches=patches, grid=GRID, seeds=seeds, target=target, videos=tuple(map(str, seeds)))


def small_network(*, seed: int = 2, dropout: float = 0.1) -> VideoTokenMerging:
    """A learnable network for `clip_batches`."""
    torch.manual_seed(seed)
    config = NetworkConfig(
        in_width=7,
        outputs=2,
        widths=(6, 5),
        windows_frames=(2, 4),
        heads=1,
        head_width=5,
        partition_factor=3,
        dropout=dropout,
    )
    return VideoTokenMerging(config)


def clip_task(batches: Callable[[int], Iterator[ClipBatch]] = clip_batches) -> TrainingTask[VideoTokenMerging]:
    """A task on `clip_batches`, or on other batches of the same shape."""
    return TrainingTask(
        objective=labelled_objective(),
        batches=batches,
        steps_per_epoch=3,
        validate=lambda model: figures("classification", predict_videos(model, clip_batches(99))),
        scores=("accuracy", "log_loss"),
        keep_best=lambda _: None,
    )


@pytest.fixture
def network() -> VideoTokenMerging:
    return small_network()


@pytest.fixture
def make_task() -> Callable[..., TrainingTask[VideoTokenMerging]]:
    return clip_task
