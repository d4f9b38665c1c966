"""What a network is, as one value: enough to build it again, and what its checkpoint folder says in config.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from vtm.errors import NetworkError

NetworkStrategy = Literal["none", "naive", "center", "boundary", "motion", "learnable", "weighted"]
"""`none` is the paper's baseline: the same three blocks without a merge. `weighted` is ours: each block merges before
its attention, by weights that the task's loss trains (`vtm.network.weighted`)."""

Task = Literal["classification", "regression"]
AttentionKernel = Literal["plain", "fused"]
Auxiliary = Literal["none", "attention", "pooling"]

WEIGHT_SHARPNESS = 3.0
"""a of the weights exp(a · s); of 1, 3 and 8 the best where settings are chosen (docs/learnable.md)."""


_CHOICES = (("task", Task), ("strategy", NetworkStrategy), ("attention", AttentionKernel), ("auxiliary", Auxiliary))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Widths, windows and merging of the paper's network (sections 3.2 to 3.4 and 4.2).

    The paper says neither how many heads there are nor what D of equation 7 is; the memory that it measured fits four
    heads and a D that does not grow with the width.

    Raises:
        NetworkError: a setting is out of range or does not go with another.
    """

    in_width: int
    """C of the encoder's tokens."""
    outputs: int
    """Classes of a classification, or values of a regression."""
    task: Task = "classification"
    strategy: NetworkStrategy = "learnable"
    widths: tuple[int, ...] = (512, 256, 256)
    """Channels after each block. The paper halves in each block and ends at 256, which cannot both be from 1024."""
    windows_frames: tuple[int, ...] = (6, 30, 60)
    """Frames that each block's attention spans, L_1 to L_3; each divides the next."""
    partition_factor: int = 6
    """γ: one target in γ tokens."""
    merge_share: float = 0.8
    """R of equation 5 as a share of the sources |S|."""
    heads: int = 4
    head_width: int = 64
    """D of equations 7 to 9 is heads · head_width, and the root of equation 8 is that of head_width."""
    dropout: float = 0.1
    """Share of attention outputs zeroed in training; the paper names a dropout and no rate."""
    draw_sharpness: float = 1.0
    """Factor on the scores that `learnable` draws targets by, or power of the weights that `weighted` does. 1 is the
    paper's: the most salient token is at most e² times likelier than the least; 0 draws evenly."""
    weight_sharpness: float = WEIGHT_SHARPNESS
    """a of `weighted`, whose weights are exp(a · s) with s in (-1, 1); 0 makes all tokens count alike."""
    auxiliary: Auxiliary = "attention"
    """What is trained beside the prediction, in training only: the paper's auxiliary path (equation 10) of a learnable
    network; or `pooling`, ours: each block pools its input, by its scores where it has some, for a prediction of its
    own; or nothing."""
    auxiliary_scale: float | None = None
    """Factor on the logits of equation 10; None is the paper's 1/√C, C the width of the block's input."""
    attention: AttentionKernel = "fused"
    """`plain` holds the softmax matrix in memory, as the paper's figures do; `fused` never does. Equal to rounding."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES:
            value = getattr(self, name)
            if value not in get_args(choices):
                raise NetworkError(f"{name} is one of {', '.join(get_args(choices))}, got {value!r}")
        for name in ("in_width", "outputs", "partition_factor", "heads", "head_width"):
            if getattr(self, name) < 1:
                raise NetworkError(f"{name} is at least 1, got {getattr(self, name)}")
        if not self.widths or len(self.widths) != len(self.windows_frames):
            raise NetworkError(
                f"every block has a width and a window, got widths {self.widths} and windows {self.windows_frames}"
            )
        if min(self.widths) < 1 or min(self.windows_frames) < 1:
            raise NetworkError(f"widths and windows are at least 1, got {self.widths} and {self.windows_frames}")
        for shorter, longer in zip(self.windows_frames, self.windows_frames[1:], strict=False):
            if longer % shorter:
                raise NetworkError(
                    f"each window is a multiple of the one before, got {self.windows_frames}: "
                    f"{longer} is no multiple of {shorter}"
                )
        for name in ("draw_sharpness", "weight_sharpness"):
            # Written so that NaN, which compares as false, is refused as well.
            if not 0 <= getattr(self, name) < math.inf:
                raise NetworkError(f"{name} is 0 or more and finite, got {getattr(self, name)}")
        if not 0 <= self.merge_share <= 1 or not 0 <= self.dropout < 1:
            raise NetworkError(
                f"merge_share is in [0, 1] and dropout in [0, 1), got {self.merge_share} and {self.dropout}"
            )

    @property
    def attention_width(self) -> int:
        """D of equations 7 to 9, all heads together."""
        return self.heads * self.head_width

    def auxiliary_factor(self, width: int) -> float:
        """What the logits of equation 10 are multiplied with in a block whose input has `width` channels."""
        return 1 / math.sqrt(width) if self.auxiliary_scale is None else self.auxiliary_scale
