from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vtm.training.conftest import clip_batches
from vtm import token_motion
from vtm.network import VideoTokenMerging, save_model
from vtm.training import (
    ClipBatch,
    EpochReport,
    TrainingError,
    TrainingSettings,
    TrainingTask,
    labelled_objective,
    train,
)

SETTINGS = TrainingSettings(epochs=5, warmup_epochs=1, learning_rate=1e-2)
MakeTask = Callable[..., TrainingTask[VideoTokenMerging]]


class Killed(BaseException):
    """In place of a signal: nothing in the loop may catch it."""


def killed_in_epoch(last: int) -> Callable[[int], Iterator[ClipBatch]]:
    def batches(epoch: int) -> Iterator[ClipBatch]:
        for index, batch in enumerate(clip_batches(epoch)):
            if epoch == last and index == 1:
                raise Killed
            yield batch

    return batches


def fresh_copy(network: VideoTokenMerging) -> VideoTokenMerging:
    again = VideoTokenMerging(network.config)
    again.load_state_dict(network.state_dict())
    return again


def test_training_learns(network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    progress = train(network, make_task(), SETTINGS, tmp_path, report=reports.append)
    assert [report.epoch for report in reports] == [0, 1, 2, 3, 4]
    assert reports[-1].train_loss < 0.7 * reports[0].train_loss
    assert progress.best[0] == max(report.validation["accuracy"] for report in reports) > 0.9


def test_killed_and_resumed_run_ends_with_the_same_weights(
    network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path
) -> None:
    start, unbroken = fresh_copy(network), network
    train(unbroken, make_task(), SETTINGS, tmp_path / "unbroken")
    for last in (1, 3):
        with pytest.raises(Killed):
            train(fresh_copy(start), make_task(killed_in_epoch(last)), SETTINGS, tmp_path / "broken")
        torch.manual_seed(last)
    resumed = fresh_copy(start)
    train(resumed, make_task(), SETTINGS, tmp_path / "broken")
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_finished_run_trains_no_more(network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path) -> None:
    done = train(network, make_task(), SETTINGS, tmp_path)
    again = train(network, make_task(killed_in_epoch(0)), SETTINGS, tmp_path)
    assert again == done


def test_early_stopping_waits_for_its_patience(network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path) -> None:
    scores = iter([0.2, 0.5, 0.4, 0.5, 0.9])
    task = dataclasses.replace(make_task(), validate=lambda _: {"accuracy": next(scores), "log_loss": 1.0})
    progress = train(network, task, dataclasses.replace(SETTINGS, patience=2), tmp_path)
    assert (progress.stopped, progress.epochs_done, progress.best_epoch) == (True, 4, 1)


def test_best_is_the_lowest_error(network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path) -> None:
    errors, kept = iter([0.5, 0.2, 0.4, 0.3, 0.1]), []
    task = dataclasses.replace(
        make_task(), validate=lambda _: {"mse": next(errors)}, scores=("mse",), keep_best=lambda _: kept.append(True)
    )
    assert train(network, task, SETTINGS, tmp_path).best_epoch == 4
    assert len(kept) == 3


def test_another_run_does_not_resume(network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path) -> None:
    one_epoch = dataclasses.replace(SETTINGS, epochs=1)
    train(network, make_task(), one_epoch, tmp_path, run='{"seed": 1}')
    with pytest.raises(TrainingError, match="seed 1 instead of 2"):
        train(network, make_task(), one_epoch, tmp_path, run='{"seed": 2}')


def test_changed_data_is_noticed(network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has 3 batches, got 2"):
        train(network, make_task(lambda epoch: clip_batches(epoch, batches=2)), SETTINGS, tmp_path)


def test_loss_that_is_no_number_stops_the_run(network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path) -> None:
    def broken(epoch: int) -> Iterator[ClipBatch]:
        for batch in clip_batches(epoch):
            yield dataclasses.replace(batch, patches=batch.patches * float("nan"))

    with pytest.raises(TrainingError, match="loss of epoch 1 is nan"):
        train(network, make_task(broken), SETTINGS, tmp_path)


def test_a_validation_score_that_is_no_number_stops_the_run(
    network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path
) -> None:
    """Compared with `>`, it would never be better, and the run would end without a word."""
    task = dataclasses.replace(make_task(), validate=lambda _: {"mse": float("nan")}, scores=("mse",))
    with pytest.raises(TrainingError, match="mse of validation after epoch 1 is not a number"):
        train(network, task, SETTINGS, tmp_path)


def test_a_tie_goes_to_the_epoch_with_the_better_second_score(
    network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path
) -> None:
    figures_of = iter([(0.5, 2.0), (0.8, 0.9), (0.8, 0.7), (0.8, 0.7), (0.6, 0.1)])
    task = dataclasses.replace(
        make_task(), validate=lambda _: dict(zip(("accuracy", "log_loss"), next(figures_of), strict=True))
    )
    assert train(network, task, SETTINGS, tmp_path).best_epoch == 2


def test_a_finished_run_goes_on_when_asked_for_more_epochs(
    network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path
) -> None:
    train(network, make_task(), dataclasses.replace(SETTINGS, epochs=2), tmp_path)
    reports: list[EpochReport] = []
    progress = train(network, make_task(), SETTINGS, tmp_path, report=reports.append)
    assert [report.epoch for report in reports] == [2, 3, 4]
    assert progress.epochs_done == 5
    assert reports[0].learning_rate > reports[-1].learning_rate


def test_more_patience_wakes_a_run_that_stopped_early(
    network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path
) -> None:
    scores = iter([0.5, 0.4, 0.3, 0.6, 0.2])
    task = dataclasses.replace(make_task(), validate=lambda _: {"accuracy": next(scores), "log_loss": 1.0})
    assert train(network, task, dataclasses.replace(SETTINGS, patience=1), tmp_path).epochs_done == 2
    assert train(network, task, dataclasses.replace(SETTINGS, patience=4), tmp_path).best_epoch == 3


def test_clipping_bounds_each_step(network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path) -> None:
    norms = []

    def objective(model: VideoTokenMerging, batch: ClipBatch) -> torch.Tensor:
        if any(p.grad is not None for p in model.parameters()):
            norms.append(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item())
        return 100 * labelled_objective()(model, batch)

    task = dataclasses.replace(make_task(), objective=objective)
    train(fresh_copy(network), task, dataclasses.replace(SETTINGS, epochs=1), tmp_path / "free")
    assert max(norms) > 1
    norms.clear()
    train(network, task, dataclasses.replace(SETTINGS, epochs=1, clip_norm=1.0), tmp_path / "clipped")
    assert max(norms) <= 1 + 1e-5


def test_mixed_precision_learns_and_keeps_its_weights_in_float32(
    network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path
) -> None:
    dtypes = set()
    hook = network.head.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    settings = dataclasses.replace(SETTINGS, precision="bfloat16")
    progress = train(network, make_task(), settings, tmp_path)
    hook.remove()
    assert dtypes == {torch.bfloat16, torch.float32}, "training in bfloat16, validation in float32"
    assert progress.best[0] > 0.9
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_others_may_read_what_training_writes(network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        train(network, make_task(), dataclasses.replace(SETTINGS, epochs=1), tmp_path)
        save_model(tmp_path, network)
    finally:
        os.umask(before)
    for name in ("checkpoint.safetensors", "model.safetensors", "config.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": float("nan")}, "learning_rate is above 0 and finite, got nan"),
        ({"learning_rate": 0.0}, "learning_rate is above 0"),
        ({"weight_decay": float("inf")}, "weight_decay is 0 or more and finite, got inf"),
        ({"clip_norm": -1.0}, "clip_norm is 0 or more"),
        ({"patience": -1}, "patience is 0 or more"),
        ({"epochs": 0, "warmup_epochs": 0}, "epochs is at least 1"),
        ({"precision": "int4"}, "precision is one of float32, bfloat16"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        dataclasses.replace(SETTINGS, **changes)


def test_damaged_checkpoint_is_named(network: VideoTokenMerging, make_task: MakeTask, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="no checkpoint of a training run"):
        train(network, make_task(), SETTINGS, tmp_path)


def test_merged_tokens_are_spread_where_they_are_used() -> None:
    """Merged tokens and a map travel; the patches are the same as if they had been spread before."""
    tokens_KC = torch.randn(7, 5, generator=torch.Generator().manual_seed(3)).half()
    rows_BN = torch.tensor([[0, 2, 1, 0, 2, 2], [3, 6, 4, 5, 3, 6]])
    batch = ClipBatch(patches=tokens_KC, rows=rows_BN, grid=(2, 1, 3), seeds=(1, 2), wants_motion=True)
    spread = ClipBatch(patches=tokens_KC.float()[rows_BN], grid=(2, 1, 3), seeds=(1, 2))
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.patches, spread.to(torch.device("cpu")).patches)
    assert moved.motion is not None
    assert torch.equal(moved.motion, token_motion(moved.patches, (2, 1, 3)))
    assert moved.rows is None
    assert batch.to(torch.device("meta")).patches.shape == (2, 6, 5)
