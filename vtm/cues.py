"""What a strategy decides from: one row a token of keys, features, scores and noise.

Letters: B batch, N tokens of a clip, C and D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vtm.plan import MergeError
from vtm.windows import WindowRun

LEAST_SPREAD = 1e-12
"""Equal scores have a deviation of 0, by which they cannot be divided."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cues:
    """One row a token of all that a strategy decides from; what it does not read is None."""

    keys: Tensor
    """(B, N, D), any float dtype."""
    features: Tensor
    """(B, N, C), any float dtype; for `coverage`."""
    scores: Tensor | None
    """(B, N) float32, what the sampled strategies draw by."""
    noise: Tensor | None
    """(B, N) float32 Gumbel noise, for what draws."""
    spread: Tensor | None
    """(B, N) int64 low-discrepancy ranks, for `coverage`."""

    def of(self, run: WindowRun, patches: int) -> Cues:
        """The same of the windows of a run: (B·W, n, …) instead of (B, N, …).

        Args:
            run: consecutive windows of equal shape.
            patches: H·W, tokens of a frame.
        """
        return Cues(
            keys=run.cut(self.keys, patches),
            features=run.cut(self.features, patches),
            scores=None if self.scores is None else run.cut(self.scores, patches),
            noise=None if self.noise is None else run.cut(self.noise, patches),
            spread=None if self.spread is None else run.cut(self.spread, patches),
        )


def token_scores(strategy: str, keys_BND: Tensor, motion: Tensor | None, saliency: Tensor | None) -> Tensor | None:
    """What a sampled strategy's softmax is taken of.

    Args:
        strategy: `motion` and `learnable` take their scores as they are (equation 6, section 3.4), `saliency` takes the
            tanh of the standardised ones, since an encoder's attention has no scale of its own.
        keys_BND: (B, N, D) keys of the tokens that are scored.
        motion: (B, T, H, W) or (B, N), any dtype and device.
        saliency: (B, T, H, W) or (B, N), any dtype and device.

    Returns:
        (B, N) float32 on the keys' device, without gradient; None for a strategy that reads no scores.

    Raises:
        MergeError: the strategy's scores are missing, or are not one a token.
    """
    if strategy not in ("motion", "saliency", "learnable"):
        return None
    name, scores = ("motion", motion) if strategy == "motion" else ("saliency", saliency)
    if scores is None:
        raise MergeError(f"strategy {strategy} reads {name}, one value a token, but none was given")
    scores_BN = scores.detach().flatten(1).to(keys_BND.device, torch.float32)
    if scores_BN.shape != keys_BND.shape[:2]:
        raise MergeError(
            f"{name} has shape {tuple(scores.shape)}, expected one value for each of the tokens of "
            f"{tuple(keys_BND.shape[:2])}"
        )
    if strategy == "saliency":
        deviation_B1 = scores_BN.std(dim=1, correction=0, keepdim=True).clamp_min(LEAST_SPREAD)
        scores_BN = torch.tanh((scores_BN - scores_BN.mean(dim=1, keepdim=True)) / deviation_B1)
    return scores_BN
