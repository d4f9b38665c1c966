"""A training run on disk: one safetensors file with weights, AdamW's moments and how far the run is.

One file, because two cannot be replaced in one step: a killed run finds the checkpoint of an epoch whole or not at all.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vtm.errors import TrainingError

CHECKPOINT_NAME = "checkpoint.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
SHOWN_CHARACTERS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is, at the end of an epoch."""

    run: str
    """What the run was asked to do; another request does not resume it."""
    epochs_done: int = 0
    best: tuple[float, ...] = ()
    """The best validation scores so far, higher being better, the first deciding; none before the first epoch."""
    best_epoch: int = -1
    stopped: bool = False
    """Whether early stopping ended the run."""


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.AdamW, progress: Progress) -> None:
    """Replace the folder's checkpoint in one step.

    Args:
        folder: of the run, which exists.
        model: on any device.
        optimizer: over the model's parameters.
        progress: at the end of an epoch.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for moment in MOMENTS:
            if moment in optimizer.state[parameter]:
                tensors[f"optimizer.{moment}.{name}"] = optimizer.state[parameter][moment]
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    temporary = folder / f".{CHECKPOINT_NAME}.tmp"
    temporary.write_bytes(save(kept, metadata={"progress": json.dumps(asdict(progress))}))
    temporary.replace(folder / CHECKPOINT_NAME)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.AdamW, run: str) -> Progress:
    """Bring model and optimizer to where the folder's run is.

    Args:
        folder: of the run.
        model: of the same shape as the one saved; changed in place.
        optimizer: over the model's parameters; changed in place.
        run: what this run is asked to do.

    Returns:
        How far the run is; its start where there is no checkpoint.

    Raises:
        TrainingError: the checkpoint is of another run, or cannot be read.
    """
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return Progress(run=run)
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads(file.metadata()["progress"])
            progress = Progress(**values | {"best": tuple(values["best"])})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is no checkpoint of a training run: {error}; remove it to start again") from error
    if progress.run != run:
        raise TrainingError(
            f"{folder} holds a run with other settings, {_difference(progress.run, run)}: "
            "ask for the same, name another folder, or remove this one to start again"
        )
    prefix = "model."
    model.load_state_dict({name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)})
    for name, parameter in model.named_parameters():
        optimizer.state[parameter].update(_moments(tensors, name, parameter))
    return progress


def _moments(tensors: dict[str, Tensor], name: str, parameter: Tensor) -> dict[str, Tensor]:
    found = {moment: tensors.get(f"optimizer.{moment}.{name}") for moment in MOMENTS}
    # AdamW keeps its step count on the CPU wherever the parameter is.
    return {
        moment: value if moment == "step" else value.to(parameter.device)
        for moment, value in found.items()
        if value is not None
    }


def _difference(before: str, now: str) -> str:
    try:
        old, new = json.loads(before), json.loads(now)
    except ValueError:
        return f"{before!r} instead of {now!r}"
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {_shown(old.get(name))} instead of {_shown(new.get(name))}" for name in changed)


def _shown(value: object) -> str:
    """A value as a message shows it: of a hash, its first digits."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
