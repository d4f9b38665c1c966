"""Positions of visual tokens in a language model with multimodal rotary positions, from the tokens' own centres.

`transformers` counts positions off a full grid, which merged tokens do not fill. These follow the same formula and
agree with it where nothing is merged (5.23; from 5.3 on the text after a video starts max(H, W) after the video does,
before that, and in vLLM, after the greatest position).

Letters: L tokens of a prompt, M visual ones, H x W grid of tokens in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from pipeline.consumers.readers import Reader
from pipeline.consumers.video_sequence import VideoSequence

Rounding = Literal["whole", "fraction"]
"""`whole`: the nearest place of the grid, as the models were trained. `fraction`: a merged token's very centre."""


def prompt_positions(
    reader: Reader,
    is_visual_L: Tensor,
    sequence: VideoSequence,
    *,
    tokens_per_second: float = 1.0,
    rounding: Rounding = "whole",
) -> Tensor:
    """Positions of a whole prompt.

    Args:
        reader: of the family.
        is_visual_L: (L,) bool, which tokens of the prompt are visual.
        sequence: these.
        tokens_per_second: of the model's vision configuration, where `reader.temporal` is `seconds`.
        rounding: of rows and columns, and of row numbers. Seconds times `tokens_per_second` are rounded down.

    Returns:
        (1, L), counted, or for multimodal rotary positions (4, 1, L): the number of each token, which masks are made
        of, then its time, row and column. int64, or float32 for `fraction`.
    """
    if not reader.is_mrope:
        return torch.arange(len(is_visual_L))[None]
    offsets_3M = visual_offsets(reader, sequence, tokens_per_second=tokens_per_second, rounding=rounding)
    return mrope_positions(is_visual_L.tolist(), offsets_3M, sequence.grid_hw)


def visual_offsets(reader: Reader, sequence: VideoSequence, *, tokens_per_second: float, rounding: Rounding) -> Tensor:
    """Time, row and column of each visual token, from where its group of visual tokens starts: (3, M)."""
    y_M, x_M = sequence.centers_M3[:, 1].double(), sequence.centers_M3[:, 2].double()
    if reader.temporal == "seconds":
        t_M = sequence.seconds_M * tokens_per_second
        # What a float leaves below a whole number is one.
        t_M = (t_M + 1e-6).floor() if rounding == "whole" else t_M
    else:
        t_M = torch.zeros_like(y_M) if reader.temporal == "groups" else sequence.rows_M
    offsets_3M = torch.stack([t_M, y_M, x_M])
    if rounding == "fraction":
        return offsets_3M.float()
    return (offsets_3M + 0.5).floor().long()


def mrope_positions(is_visual_L: Sequence[bool], offsets_3M: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Positions of a whole prompt.

    Text counts on by one. A group of visual tokens (a run without text in between) starts where text would go on; the
    text after it starts max(H, W) later, however few tokens are left of the group.

    Args:
        is_visual_L: which tokens of the prompt are visual, M of them.
        offsets_3M: of these, in order; see `visual_offsets`.
        grid_hw: H, W.

    Returns:
        (4, 1, L): the number of each token, which masks are made of, then time, row and column; in the dtype of
        `offsets_3M`.
    """
    length, start, done, begun = len(is_visual_L), 0, 0, 0
    positions_3L = offsets_3M.new_zeros(3, length)
    for visual, run in groupby(is_visual_L):
        count = len(list(run))
        if visual:
            positions_3L[:, begun : begun + count] = start + offsets_3M[:, done : done + count]
            done += count
            start += max(grid_hw)
        else:
            positions_3L[:, begun : begun + count] = torch.arange(start, start + count)
            start += count
        begun += count
    numbers_1L = torch.arange(length, dtype=offsets_3M.dtype)[None]
    return torch.cat([numbers_1L, positions_3L])[:, None]
