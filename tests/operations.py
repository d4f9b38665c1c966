"""Counts what a GPU would be asked to do: operators dispatched that are no views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vtm.replay import Replayed

VIEWS = (
    *("view", "expand", "slice", "select", "unsqueeze", "squeeze", "permute", "transpose", "detach", "alias"),
    *("t", "as_strided", "_unsafe_view", "split", "unbind", "diagonal", "promote_types", "empty", "new_empty"),
    *("empty_like", "empty_strided"),
)


class Operations(TorchDispatchMode):
    """Counts them while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(function).split(".")[1]] += 1
        return function(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return sum(count for name, count in self.counts.items() if name not in VIEWS)


def operations_of(call: Callable[[], Any]) -> int:
    """How many operators a call dispatches."""
    with Operations() as operations:
        call()
    return operations.total


def replay_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on functions that a GPU replays cost what their replay does: a copy in and out, and one launch."""

    def replayed(self: Replayed, *tensors: Tensor | None, **settings: Any) -> tuple[Tensor | None, ...]:
        inputs = [None if x is None else torch.empty_like(x).copy_(x) for x in tensors]
        with _paused():
            self._function(*inputs, **settings)
        with _captured():
            outputs = self._function(*inputs, **settings)
        torch.zeros((), device="meta")
        return tuple(None if x is None else x.clone() for x in outputs)

    monkeypatch.setattr(Replayed, "__call__", replayed)


class _paused(TorchDispatchMode):  # noqa: N801
    """Hides what is dispatched inside it from the modes around it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch.utils._python_dispatch._disable_current_modes():
            return function(*args, **(kwargs or {}))


class _captured(TorchDispatchMode):  # noqa: N801
    """As `_paused`; and fails where memory of the host is read, which a graph would read again at each replay."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dim() and x.device.type == "cpu"]
        assert not read, f"{function} reads {[tuple(x.shape) for x in read]} of the host"
        with torch.utils._python_dispatch._disable_current_modes():
            return function(*args, **(kwargs or {}))
