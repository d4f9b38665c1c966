"""Values that are no numbers are refused before they decide a merge, by the name of their argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vtm import (
    MergeError,
    bipartite_plan,
    identity_plan,
    merge_plan,
    merge_tree,
    plan_from_targets,
    token_motion,
    weighted_mean,
    weights_from,
)

GRID = (3, 2, 5)
TOKENS = 30
TARGETS_12 = torch.tensor([[4, 17]])


def numbers(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def planned(strategy: str, bad: str, **values: Tensor) -> Any:
    scores = {"motion": numbers(1, TOKENS), "saliency": numbers(1, TOKENS)}
    given: dict[str, Any] = {"keys_BND": numbers(1, TOKENS, 7), "features": numbers(1, TOKENS, 7), **scores}
    return merge_plan(**given | {bad: values["x"]}, grid=GRID, strategy=strategy, num_tokens=7)  # type: ignore[arg-type]


ENTRIES: dict[str, tuple[str, tuple[int, ...], Callable[[Tensor], Any]]] = {
    "merge_plan keys": ("keys", (1, TOKENS, 7), lambda x: planned("naive", "keys_BND", x=x)),
    "merge_plan features": ("features", (1, TOKENS, 7), lambda x: planned("coverage", "features", x=x)),
    "merge_plan motion": ("motion scores", (1, TOKENS), lambda x: planned("motion", "motion", x=x)),
    "merge_plan saliency": ("saliency scores", (1, TOKENS), lambda x: planned("saliency", "saliency", x=x)),
    "merge_plan learnable": ("saliency scores", (1, TOKENS), lambda x: planned("learnable", "saliency", x=x)),
    "merge_tree features": ("features", (1, TOKENS, 7), lambda x: merge_tree(x, grid=GRID)),
    "merge_tree weights": (
        "weights",
        (1, TOKENS),
        lambda x: merge_tree(numbers(1, TOKENS, 7), grid=GRID, weights=x),
    ),
    "plan_from_targets": ("keys", (1, TOKENS, 7), lambda x: plan_from_targets(x, TARGETS_12)),
    "bipartite_plan": ("keys", (1, TOKENS, 7), lambda x: bipartite_plan(x, 5)),
    "token_motion": ("tokens", (1, TOKENS, 7), lambda x: token_motion(x, GRID)),
    "weights_from": ("scores", (1, TOKENS), weights_from),
    "weighted_mean": (
        "weights",
        (1, TOKENS),
        lambda x: weighted_mean(numbers(1, TOKENS, 7), identity_plan(1, TOKENS), x),
    ),
}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_no_number_is_refused(entry: str, bad: float) -> None:
    name, shape, call = ENTRIES[entry]
    values = numbers(*shape)
    call(values)
    values.view(-1)[3] = bad
    with pytest.raises(MergeError, match=f"^{name}: 1 of "):
        call(values)
