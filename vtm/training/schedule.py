"""The learning rate of a step: linear warm-up, then a cosine down to nothing (the paper's section 4.2)."""

from __future__ import annotations

import math


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """The rate of one step.

    Args:
        step: from 0 to total_steps - 1.
        peak: reached at the end of the warm-up.
        warmup_steps: steps of linear growth, the first at peak / warmup_steps.
        total_steps: the cosine ends there, at 0.

    Returns:
        From 0 to `peak`.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * progress)) / 2
