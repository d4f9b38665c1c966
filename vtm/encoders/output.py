"""What an encoder returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor

from vtm.plan import MergePlan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderOutput:
    """Tokens of a batch of B frames, N patches each, in y, x order."""

    patches: Tensor
    """(B, N, D) output of the chosen block; (B, M, D) where the encoder merges inside."""
    keys: Tensor
    """(B, N, d), or (B, M, d): attention keys of the chosen block, all heads side by side, before any rotary embedding:
    what a token is, not where it is."""
    cls: Tensor | None = None
    """(B, D), where the family has a cls token."""
    registers: Tensor | None = None
    """(B, R, D), where the family has registers or a distillation token."""
    pooled: Tensor | None = None
    """(B, E) the family's image embedding, where it has one and the chosen block is the last, or it was asked for."""
    saliency: Tensor | None = None
    """(B, N) or (B, M) float32, where asked for: attention of the chosen block from cls to each token; without a cls
    token the mean attention that each receives; averaged over heads."""
    plan: MergePlan | None = None
    """Which of the M tokens represents each of the N patches, where the encoder merges inside."""
    sizes: Tensor | None = None
    """(B, M) float32 how many patches each token represents, where the encoder merges inside; each row sums to N."""

    @staticmethod
    def stack(outputs: Sequence[EncoderOutput]) -> EncoderOutput:
        """Several batches of one encoder as one."""
        columns = {field.name: [getattr(output, field.name) for output in outputs] for field in fields(EncoderOutput)}
        joined: dict[str, Any] = {name: None if x[0] is None else _joined(x) for name, x in columns.items()}
        return EncoderOutput(**joined)


def _joined(parts: Sequence[Tensor] | Sequence[MergePlan]) -> Tensor | MergePlan:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(cast(list[Tensor], parts))
    return MergePlan.cat(cast(Sequence[MergePlan], parts))
