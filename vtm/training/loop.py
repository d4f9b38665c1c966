"""The training loop: AdamW over epochs of batches, validation, early stopping, and a checkpoint after each epoch.

It trains whatever module an objective scores, the network with labels or a scorer without. All that a step draws comes
from its number, so a run that was killed and started again ends with the weights of one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from vtm.training.batches import ClipBatch, EpochBatches
from vtm.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from vtm.training.schedule import learning_rate
from vtm.training.settings import TrainingError, TrainingSettings

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch came to."""

    epoch: int
    steps: int
    learning_rate: float
    """Of the epoch's last step."""
    train_loss: float
    """Mean over the epoch's steps."""
    validation: Mapping[str, float]
    """Figures by name; the run's score is among them."""
    improved: bool
    """Whether the score is the best so far."""
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Model]):
    """What is trained, on what, and how well it does."""

    objective: Callable[[Model, ClipBatch], Tensor]
    """The loss of a batch, a scalar."""
    batches: EpochBatches
    steps_per_epoch: int
    validate: Callable[[Model], Mapping[str, float]]
    """Figures of the model in evaluation mode."""
    score: str
    """The figure that decides, higher being better where it is `accuracy` or `fidelity`, lower otherwise."""
    keep_best: Callable[[Model], None]
    """Called whenever the score is the best so far."""


def train(
    model: Model,
    task: Task[Model],
    settings: TrainingSettings,
    folder: Path,
    *,
    run: str = "",
    report: Callable[[EpochReport], None] = lambda _: None,
) -> Progress:
    """Train from the start, or from the folder's checkpoint.

    Args:
        model: changed in place, on the device to train on.
        task: objective, data and validation.
        settings: of the optimizer and the schedule.
        folder: keeps the checkpoint; made where it does not exist.
        run: what the run was asked to do, kept with the checkpoint; JSON makes the best error messages.
        report: called after each epoch, before the epoch's checkpoint is written.

    Returns:
        How the run ended.

    Raises:
        TrainingError: the folder holds another run, an epoch without batches, or a loss that is no number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    progress = load_checkpoint(folder, model, optimizer, run)
    while progress.epochs_done < settings.epochs and not progress.stopped:
        epoch, start_s = progress.epochs_done, time.perf_counter()
        train_loss = _train_epoch(model, optimizer, task, settings, epoch)
        with torch.no_grad():
            validation = task.validate(model.eval())
        progress = _advance(progress, _oriented(task.score, validation), settings)
        improved = progress.best_epoch == epoch
        if improved:
            task.keep_best(model)
        report(
            EpochReport(
                epoch=epoch,
                steps=(epoch + 1) * task.steps_per_epoch,
                learning_rate=optimizer.param_groups[0]["lr"],
                train_loss=train_loss,
                validation=validation,
                improved=improved,
                wall_s=time.perf_counter() - start_s,
            )
        )
        save_checkpoint(folder, model, optimizer, progress)
    return progress


def _train_epoch(
    model: Model, optimizer: torch.optim.AdamW, task: Task[Model], settings: TrainingSettings, epoch: int
) -> float:
    model.train()
    total, steps = 0.0, 0
    first = epoch * task.steps_per_epoch
    for steps, batch in enumerate(_exactly(task.batches(epoch), task.steps_per_epoch), start=1):
        total += _step(model, optimizer, task, settings, batch, first + steps - 1)
    return total / steps


def _step(
    model: Model,
    optimizer: torch.optim.AdamW,
    task: Task[Model],
    settings: TrainingSettings,
    batch: ClipBatch,
    step: int,
) -> float:
    """One update; returns the loss."""
    device = next(model.parameters()).device
    optimizer.param_groups[0]["lr"] = learning_rate(
        step,
        peak=settings.learning_rate,
        warmup_steps=settings.warmup_epochs * task.steps_per_epoch,
        total_steps=settings.epochs * task.steps_per_epoch,
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed * (1 << 32) + step)
        loss = task.objective(model, batch.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
    value = loss.item()
    if value != value:
        raise TrainingError(
            f"the loss of step {step} is not a number: lower the learning rate, {settings.learning_rate}"
        )
    optimizer.step()
    return value


def _exactly(batches: Iterable[ClipBatch], count: int) -> Iterable[ClipBatch]:
    found = 0
    for batch in batches:
        found += 1
        yield batch
    if found != count or not count:
        raise TrainingError(f"an epoch has {count} batches, got {found}: there is nothing to train on, or data changed")


def _oriented(score: str, validation: Mapping[str, float]) -> float:
    return validation[score] if score in ("accuracy", "fidelity") else -validation[score]


def _advance(progress: Progress, score: float, settings: TrainingSettings) -> Progress:
    epoch = progress.epochs_done
    if progress.best_score is None or score > progress.best_score:
        return replace(progress, epochs_done=epoch + 1, best_score=score, best_epoch=epoch)
    stale = epoch - progress.best_epoch
    return replace(progress, epochs_done=epoch + 1, stopped=0 < settings.patience <= stale)
