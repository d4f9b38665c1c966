"""Positions worked out by hand for each family, and the rules that follow from them for merged tokens."""

from __future__ import annotations

import pytest
import torch

from pipeline.consumers.positions import prompt_positions
from pipeline.consumers.readers import READERS
from pipeline.consumers.video_sequence import VideoSequence
from tests.pipeline.encode.video_llm_checkpoints import MAKERS

COUNTED = [list(range(8))]
# Two words, two token rows of 1 x 2 tokens that are 0.75 s apart, two words; four positions a second.
ONE_GROUP = [False, False, True, True, True, True, False, False]
ROWS_APART = [False, True, True, False, True, True, False, False]
BY_HAND: dict[str, tuple[list[bool], list[list[int]]]] = {
    # Tokens start at 2; times are row numbers; the words after them start at 2 + max(1, 2) = 4.
    "qwen2_vl": (
        ONE_GROUP,
        [*COUNTED, [0, 1, 2, 2, 3, 3, 4, 5], [0, 1, 2, 2, 2, 2, 4, 5], [0, 1, 2, 3, 2, 3, 4, 5]],
    ),
    # Times are 0.75 s x 4 = 3 after the start; the words after them start at 4 all the same.
    "qwen2_5_vl": (
        ONE_GROUP,
        [*COUNTED, [0, 1, 2, 2, 5, 5, 4, 5], [0, 1, 2, 2, 2, 2, 4, 5], [0, 1, 2, 3, 2, 3, 4, 5]],
    ),
    # Each row starts where the word before it ends, and takes max(1, 2) positions.
    "qwen3_vl": (
        ROWS_APART,
        [*COUNTED, [0, 1, 1, 3, 4, 4, 6, 7], [0, 1, 1, 3, 4, 4, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]],
    ),
    "internvl": (ROWS_APART, COUNTED),
    "llava_next_video": (ONE_GROUP, COUNTED),
    "llava_onevision": (ONE_GROUP, COUNTED),
    "smolvlm": (ROWS_APART, COUNTED),
    "video_llama_3": (ROWS_APART, COUNTED),
}


def joined(centers: list[list[float]], seconds_per_row: float, grid_hw: tuple[int, int] = (1, 2)) -> VideoSequence:
    centers_M3 = torch.tensor(centers)
    rows_M, count = centers_M3[:, 0].double(), len(centers)
    return VideoSequence(
        tokens_MD=torch.zeros(count, 1),
        sizes_M=torch.ones(count, dtype=torch.int64),
        centers_M3=centers_M3,
        rows_M=rows_M,
        seconds_M=rows_M * seconds_per_row,
        row_of_M=rows_M.long(),
        rows=(),
        grid_hw=grid_hw,
    )


@pytest.mark.parametrize("family", MAKERS)
def test_a_prompt_by_hand(family: str) -> None:
    visual, expected = BY_HAND[family]
    tokens = joined([[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]], 0.75)
    found = prompt_positions(READERS[family], torch.tensor(visual), tokens, tokens_per_second=4)
    assert found.dtype == torch.int64
    assert found.shape == ((4, 1, 8) if family.startswith("qwen") else (1, 8))
    assert found.reshape(-1, 8).tolist() == expected


@pytest.mark.parametrize(("family", "time"), [("qwen2_vl", 0), ("qwen2_5_vl", 2), ("qwen3_vl", 0)])
def test_a_merged_token_has_the_position_of_its_centre(family: str, time: int) -> None:
    """Of the patches (0, 0, 0), (0, 0, 1) and (1, 2, 1): 1/3, 2/3, 2/3, and 2/3 s x 3 = 2 where seconds count."""
    token = joined([[1 / 3, 2 / 3, 2 / 3]], 2.0)
    visual = torch.tensor([True])
    found = prompt_positions(READERS[family], visual, token, tokens_per_second=3)
    assert found[1:, 0, 0].tolist() == [time, 1, 1]
    exact = prompt_positions(READERS[family], visual, token, tokens_per_second=3, rounding="fraction")
    times = {"qwen2_vl": 1 / 3, "qwen2_5_vl": 2.0, "qwen3_vl": 0.0}
    torch.testing.assert_close(exact[1:, 0, 0], torch.tensor([times[family], 2 / 3, 2 / 3]))


def test_seconds_that_a_float_leaves_below_a_whole_number_are_that_number() -> None:
    # 0.1 x 3 x 10 is 3.0000000000000004 and 0.3 x 10 is 3, but 0.7 x 10 x 10 / 10 may be either side of 7.
    token = joined([[1.0, 0, 0]], 0.7 - 1e-9)
    assert prompt_positions(READERS["qwen2_5_vl"], torch.tensor([True]), token, tokens_per_second=10)[1, 0, 0] == 7
