"""A training run as people follow it: a bar, one JSON line an epoch, and TensorBoard events on request."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from pipeline.errors import SettingsError
from vtm.training import EpochReport

METRICS_NAME = "metrics.jsonl"


class TrainingLog:
    """Open while a run trains; a resumed run's lines go on after those of its last whole epoch."""

    def __init__(self, folder: Path, epochs: int, *, tensorboard: bool) -> None:
        """Prepare the log; `begin` opens it.

        Raises:
            SettingsError: TensorBoard is asked for and not installed.
        """
        self._folder, self._epochs = folder, epochs
        self._path = folder / METRICS_NAME
        self._writer = _event_writer() if tensorboard else None
        self._events: Any = None
        self._bar: Any = None

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._events is not None:
            self._events.close()

    def begin(self, epochs_done: int) -> None:
        """Draw the bar: a run that is refused draws none, and writes no events."""
        self._bar = tqdm(total=self._epochs, initial=epochs_done, unit="epoch", desc=str(self._folder))
        if self._writer is not None:
            self._events = self._writer(str(self._folder / "events"))

    def report(self, report: EpochReport) -> None:
        """Record one epoch."""
        lines = self._lines_before(report.epoch)
        lines.append(json.dumps(asdict(report) | {"validation": dict(report.validation)}))
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(self._path)
        figures = {"train_loss": report.train_loss, **report.validation}
        self._bar.update(report.epoch + 1 - self._bar.n)
        self._bar.set_postfix({name: f"{value:.4f}" for name, value in figures.items()})
        if self._events is not None:
            for name, value in {**figures, "learning_rate": report.learning_rate}.items():
                self._events.add_scalar(name, value, report.steps)

    def _lines_before(self, epoch: int) -> list[str]:
        # An epoch that was reported but not checkpointed before a kill is trained, and reported, again.
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if json.loads(line)["epoch"] < epoch]


def _event_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingsError("--tensorboard needs the package tensorboard: pip install 'vtm-pipeline[train]'") from error
    return SummaryWriter
