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
        """Open the log.

        Raises:
            SettingsError: TensorBoard is asked for and not installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS_NAME
        self._events = _open_events(folder) if tensorboard else None
        self._bar: Any = tqdm(total=epochs, unit="epoch", desc=str(folder))

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._events is not None:
            self._events.close()

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


def _open_events(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingsError("--tensorboard needs the package tensorboard: pip install 'vtm-pipeline[train]'") from error
    return SummaryWriter(str(folder / "events"))
