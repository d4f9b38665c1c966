"""How a training run goes, as one value; the defaults are the paper's (section 4.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from vtm.errors import TrainingError

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """AdamW with a warm-up and a cosine, and when to stop.

    Raises:
        TrainingError: a setting is out of range.
    """

    epochs: int = 70
    warmup_epochs: int = 10
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    patience: int = 0
    """Epochs without a better validation score before training stops; 0 never stops early."""
    seed: int = 0
    """Of the dropout; the data carries its own."""
    precision: Precision = "float32"
    """Of the products; weights, sums and the optimizer stay in float32 (automatic mixed precision)."""
    clip_norm: float = 0.0
    """Most that the norm of all gradients may be, larger ones being scaled down to it; 0 clips nothing."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 <= self.warmup_epochs <= self.epochs:
            raise TrainingError(
                f"epochs is at least 1 and warmup_epochs at most that, got {self.epochs} and {self.warmup_epochs}"
            )
        if self.precision not in get_args(Precision):
            raise TrainingError(f"precision is one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        # Written so that NaN, which compares as false, is refused as well.
        if not 0 < self.learning_rate < math.inf:
            raise TrainingError(f"learning_rate is above 0 and finite, got {self.learning_rate}")
        for name in ("weight_decay", "patience", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"{name} is 0 or more and finite, got {getattr(self, name)}")
