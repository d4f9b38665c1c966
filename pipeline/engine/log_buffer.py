"""What a remote worker logs, kept until its next answer takes it along."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class LogBuffer:
    """Log lines of a worker, sent with its next answer."""

    lines: list[str] = field(default_factory=list)

    def take(self) -> tuple[str, ...]:
        """Everything since the last time."""
        taken, self.lines = tuple(self.lines), []
        return taken


def forward_logs(say: Callable[[str], None]) -> None:
    """Forward warnings and log lines of this process: nobody reads the standard error of a remote worker."""
    logging.getLogger().addHandler(_Handler(say))
    logging.captureWarnings(True)


class _Handler(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(" ".join(record.getMessage().split()))
