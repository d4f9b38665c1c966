"""The training loop: AdamW over epochs of batches, validation, early stopping, and a checkpoint after each epoch.

It trains whatever module an objective scores. All that a step draws comes from its number, so a run that was killed and
started again ends with the weights of one that was not. Several processes run it together, each on its part of a batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from vtm.errors import TrainingError
from vtm.training.batches import ClipBatch, EpochBatches
from vtm.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from vtm.training.ranks import ALONE, Ranks
from vtm.training.schedule import learning_rate
from vtm.training.settings import TrainingSettings

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
class TrainingTask(Generic[Model]):
    """What is trained, on what, and how well it does."""

    objective: Callable[[Model, ClipBatch], Tensor]
    """The loss of a batch, a scalar: the mean over its clips."""
    batches: EpochBatches
    steps_per_epoch: int
    validate: Callable[[Model], Mapping[str, float]]
    """Figures of the model in evaluation mode; those of rank 0 decide."""
    scores: tuple[str, ...]
    """The figures that tell the best epoch: the first, or at a tie the next; higher is better for `accuracy` alone."""
    keep_best: Callable[[Model], None]
    """Called whenever the scores are the best so far."""


def train(
    model: Model,
    task: TrainingTask[Model],
    settings: TrainingSettings,
    folder: Path,
    *,
    run: str = "",
    ranks: Ranks = ALONE,
    begin: Callable[[int], None] = lambda _: None,
    report: Callable[[EpochReport], None] = lambda _: None,
) -> Progress:
    """Train from the start, or from the folder's checkpoint.

    A run that asks for more epochs, or another patience, than the checkpoint's goes on from there, on the learning rate
    of the longer schedule.

    Args:
        model: changed in place, on the device to train on.
        task: objective, data and validation.
        settings: of the optimizer and the schedule.
        folder: keeps the checkpoint; made where it does not exist.
        run: what the run was asked to do, kept with the checkpoint; JSON makes the best error messages.
        ranks: which of several processes this is. All of them call this, with the same arguments but for the device and
            the own part of each batch; rank 0 alone writes, begins and reports.
        begin: called once with the epochs that are done, when nothing about the folder is refused any more.
        report: called after each epoch, before the epoch's checkpoint is written.

    Returns:
        How the run ended.

    Raises:
        TrainingError: the folder holds another run, an epoch without batches, or a loss or a score that is no number,
            or processes that were asked for different runs.
        RankError: another process is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    progress = load_checkpoint(folder, model, optimizer, run)
    _check_same_run(ranks, progress, folder)
    ranks.take_weights(model)
    progress = replace(progress, stopped=_waited_enough(progress, settings))
    if ranks.leads:
        begin(progress.epochs_done)
    while progress.epochs_done < settings.epochs and not progress.stopped:
        epoch, start_s = progress.epochs_done, time.perf_counter()
        train_loss = _train_epoch(model, optimizer, task, settings, ranks, epoch)
        with torch.no_grad():
            # Even the last bit decides when to stop, and all have to stop at once.
            validation = ranks.of_first(task.validate(model.eval()))
        progress = _advance(progress, _oriented(task.scores, validation, epoch), settings)
        improved = progress.best_epoch == epoch
        if not ranks.leads:
            continue
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


def _check_same_run(ranks: Ranks, progress: Progress, folder: Path) -> None:
    # Ranks at different epochs would wait for each other without end.
    first = ranks.of_first(progress)
    differs = list(ranks.in_order([first != progress]))
    if any(differs):
        raise TrainingError(
            f"process {differs.index(True)} does not find what process 0 finds in {folder}, or reads other data: "
            "all processes need the same command, data and folder, on a file system that they share"
        )


def _train_epoch(
    model: Model,
    optimizer: torch.optim.AdamW,
    task: TrainingTask[Model],
    settings: TrainingSettings,
    ranks: Ranks,
    epoch: int,
) -> float:
    """The mean loss over the epoch's steps."""
    model.train()
    device = next(model.parameters()).device
    # Added up where the losses are: to look at each would make the host wait for a GPU at every step.
    total, steps = torch.zeros((), device=device), 0
    first = epoch * task.steps_per_epoch
    for steps, batch in enumerate(_exactly(task.batches(epoch), task.steps_per_epoch), start=1):
        total += _step(model, optimizer, task, settings, ranks, batch, first + steps - 1)
    mean = total.item() / steps
    if not math.isfinite(mean):
        raise TrainingError(
            f"the loss of epoch {epoch + 1} is {mean}: lower the learning rate, {settings.learning_rate}, "
            "or clip the gradients' norm, for example at 1"
        )
    return mean


def _step(
    model: Model,
    optimizer: torch.optim.AdamW,
    task: TrainingTask[Model],
    settings: TrainingSettings,
    ranks: Ranks,
    batch: ClipBatch,
    step: int,
) -> Tensor:
    """One update; returns the loss over the clips of all ranks, without gradient."""
    device = next(model.parameters()).device
    optimizer.param_groups[0]["lr"] = learning_rate(
        step,
        peak=settings.learning_rate,
        warmup_steps=settings.warmup_epochs * task.steps_per_epoch,
        total_steps=settings.epochs * task.steps_per_epoch,
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(ranks.own_seed(settings.seed * (1 << 32) + step))
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            loss = task.objective(model, batch.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
    mean_loss = ranks.mean_gradients(model, loss, len(batch.seeds) if batch.counts else 0)
    if settings.clip_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimizer.step()
    return mean_loss


def _exactly(batches: Iterable[ClipBatch], count: int) -> Iterable[ClipBatch]:
    found = 0
    for batch in batches:
        found += 1
        yield batch
    if found != count or not count:
        raise TrainingError(f"an epoch has {count} batches, got {found}: there is nothing to train on, or data changed")


def _oriented(names: Sequence[str], validation: Mapping[str, float], epoch: int) -> tuple[float, ...]:
    """The scores that decide, higher being better."""
    for name in names:
        if math.isnan(validation[name]):
            raise TrainingError(
                f"the {name} of validation after epoch {epoch + 1} is not a number: lower the learning rate, or look "
                "at the labels and tokens of the validation videos"
            )
    return tuple(validation[name] if name == "accuracy" else -validation[name] for name in names)


def _advance(progress: Progress, scores: tuple[float, ...], settings: TrainingSettings) -> Progress:
    epoch = progress.epochs_done
    progress = replace(progress, epochs_done=epoch + 1)
    if not progress.best or scores > progress.best:
        return replace(progress, best=scores, best_epoch=epoch)
    return replace(progress, stopped=_waited_enough(progress, settings))


def _waited_enough(progress: Progress, settings: TrainingSettings) -> bool:
    return 0 < settings.patience <= progress.epochs_done - 1 - progress.best_epoch and bool(progress.best)
