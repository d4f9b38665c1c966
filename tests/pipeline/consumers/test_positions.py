"""Positions worked out by hand for each family, and the rules that follow from them for merged tokens."""

from __future__ import annotations

import torch

from pipeline.consumers.positions import mrope_positions, visual_offsets
from pipeline.consumers.readers import READERS

# Two token rows of 1 x 2 tokens, then a token merged of the right column of both rows.
CENTERS = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]])
ROWS = torch.tensor([0.0, 0, 1, 1])
SECONDS = ROWS * 0.75


def offsets(family: str, **choices: object) -> list[list[float]]:
    return visual_offsets(
        READERS[family], CENTERS, rows_M=ROWS, seconds_M=SECONDS, tokens_per_second=4, **choices
    ).tolist()  # type: ignore[arg-type]


def test_qwen2_counts_rows() -> None:
    assert offsets("qwen2_vl") == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]]


def test_qwen2_5_counts_seconds_times_tokens_per_second() -> None:
    # 0.75 s x 4 = 3.
    assert offsets("qwen2_5_vl") == [[0, 0, 3, 3], [0, 0, 0, 0], [0, 1, 0, 1]]


def test_qwen3_leaves_time_to_the_words_between_rows() -> None:
    assert offsets("qwen3_vl") == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]]


def test_text_goes_on_after_the_longer_side_of_the_grid() -> None:
    """By hand: two words, four tokens from position 2 on, and the next word at 2 + max(1, 2) = 4, whatever time says."""
    visual = [False, False, True, True, True, True, False, False]
    expected = [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 2, 2, 5, 5, 4, 5],
        [0, 1, 2, 2, 2, 2, 4, 5],
        [0, 1, 2, 3, 2, 3, 4, 5],
    ]
    found = mrope_positions(visual, torch.tensor(offsets("qwen2_5_vl")), (1, 2))
    assert found.shape == (4, 1, 8)
    assert found[:, 0].tolist() == expected


def test_each_group_of_qwen3_starts_where_its_text_ends() -> None:
    """By hand: word, row, word, row, word; a row takes two positions, so that the last word is at 1 + 2 + 1 + 2."""
    visual = [False, True, True, False, True, True, False]
    found = mrope_positions(visual, torch.tensor(offsets("qwen3_vl")), (1, 2))[:, 0].tolist()
    assert found[1:] == [[0, 1, 1, 3, 4, 4, 6], [0, 1, 1, 3, 4, 4, 6], [0, 1, 2, 3, 4, 5, 6]]


def test_merged_tokens_have_the_positions_of_their_centres() -> None:
    """A token of the patches (0, 0, 0), (0, 0, 1) and (1, 2, 1) has its centre at 1/3, 2/3, 2/3."""
    centers, rows = torch.tensor([[1 / 3, 2 / 3, 2 / 3]]), torch.tensor([1 / 3])
    for family, time in (("qwen2_vl", 0), ("qwen2_5_vl", 2), ("qwen3_vl", 0)):
        found = visual_offsets(READERS[family], centers, rows_M=rows, seconds_M=rows * 2, tokens_per_second=3)
        assert found.dtype == torch.int64
        assert found[:, 0].tolist() == [time, 1, 1]
    exact = visual_offsets(READERS["qwen2_vl"], centers, rows_M=rows, seconds_M=rows, rounding="fraction")
    torch.testing.assert_close(exact[:, 0], torch.tensor([1 / 3, 2 / 3, 2 / 3]))


def test_seconds_that_a_float_leaves_below_a_whole_number_are_that_number() -> None:
    seconds = torch.tensor([0.1 * 3 * 10 / 10 - 1e-12], dtype=torch.float64)
    found = visual_offsets(
        READERS["qwen2_5_vl"], torch.zeros(1, 3), rows_M=seconds, seconds_M=seconds, tokens_per_second=10
    )
    assert found[0, 0] == 3


def test_the_other_families_count_their_tokens() -> None:
    counted = {family for family, reader in READERS.items() if not reader.is_mrope}
    assert counted == {"internvl", "llava_next_video", "llava_onevision", "smolvlm", "video_llama_3"}
