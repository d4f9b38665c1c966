"""What an encoder returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderOutput:
    """Tokens of a batch of B frames, N patches each, in y, x order."""

    patches: Tensor
    """(B, N, D) output of the chosen block."""
    keys: Tensor
    """(B, N, d) attention keys of the patches in the chosen block, all heads side by side, before any rotary embedding:
    what a token is, not where it is."""
    cls: Tensor | None = None
    """(B, D), where the family has a cls token."""
    registers: Tensor | None = None
    """(B, R, D), where the family has registers or a distillation token."""
    pooled: Tensor | None = None
    """(B, E) the family's image embedding, where it has one and the chosen block is the last."""
    saliency: Tensor | None = None
    """(B, N) float32, where asked for: attention of the chosen block from cls to each patch, or, without a cls token,
    the mean attention that each patch receives; averaged over heads."""

    @staticmethod
    def stack(outputs: Sequence[EncoderOutput]) -> EncoderOutput:
        """Several batches of one encoder as one."""
        columns = {field.name: [getattr(output, field.name) for output in outputs] for field in fields(EncoderOutput)}
        joined: dict[str, Any] = {name: None if x[0] is None else torch.cat(x) for name, x in columns.items()}
        return EncoderOutput(**joined)
