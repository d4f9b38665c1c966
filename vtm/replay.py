"""A function of fixed shapes as one CUDA graph: what would be thousands of launches is one.

A graph runs the kernels that the function launches, in the same order; that the bits are the same is for a GPU to show
(`tests/pipeline/encode/test_no_waiting.py`). Elsewhere than on a GPU the function is called.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)
MOST_GRAPHS = 2
"""Held at a time, each with the memory of its function: a whole clip, and one of another length."""

Tensors = tuple[Tensor | None, ...]
Key = tuple[tuple[tuple[torch.Size, torch.dtype, torch.device] | None, ...], tuple[tuple[str, Any], ...]]


def present(x: Tensor | None) -> Tensor:
    """A result that is known to be there."""
    assert x is not None
    return x


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: Tensors
    outputs: Tensors

    def __call__(self, tensors: Tensors) -> Tensors:
        for mine, given in zip(self.inputs, tensors, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        self.graph.replay()
        # The next replay overwrites the outputs.
        return _copies(self.outputs)


class Replayed:
    """Calls a function, and from the second call with the same shapes on a GPU replays its CUDA graph.

    Args:
        function: takes tensors or None, and settings by name that can be hashed; returns a tuple of tensors or None.
            No shape, and nothing that the host does, depends on a value, and from its second call on it reads no memory
            of the host: a graph would read there again at each replay, whatever is there by then.
    """

    def __init__(self, function: Callable[..., Tensors]) -> None:
        self._function = function
        self._graphs: OrderedDict[Key, _Graph | None] = OrderedDict()
        self._refused: set[Key] = set()
        self._lock = threading.Lock()

    def __call__(self, *tensors: Tensor | None, **settings: Any) -> Tensors:
        """What the function returns."""
        call = partial(self._function, **settings)
        on_gpu = tensors[0] is not None and tensors[0].device.type == "cuda"
        if not on_gpu or torch.cuda.is_current_stream_capturing():
            return call(*tensors)
        with self._lock:
            key = (tuple(None if x is None else (x.shape, x.dtype, x.device) for x in tensors), (*settings.items(),))
            seen, graph = key in self._graphs, self._graphs.get(key)
            if seen and graph is None and key not in self._refused:
                graph = self._capture(key, call, tensors)
            self._graphs[key] = graph
            self._graphs.move_to_end(key)
            while len(self._graphs) > MOST_GRAPHS:
                self._graphs.popitem(last=False)
            return call(*tensors) if graph is None else graph(tensors)

    def _capture(self, key: Key, call: Callable[..., Tensors], tensors: Tensors) -> _Graph | None:
        """The graph; None where the device has no memory for one, after which the call goes on being made."""
        try:
            return _captured(call, tensors)
        except RuntimeError as error:
            self._refused.add(key)
            log.warning("kernels are launched one by one, no CUDA graph could be made: %s", error)
            return None


def _captured(call: Callable[..., Tensors], tensors: Tensors) -> _Graph:
    """The call as a graph. It has been made before, so that libraries have their handles and workspaces."""
    inputs = _copies(tensors)
    graph = torch.cuda.CUDAGraph()
    # Other threads may copy to and from the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = call(*inputs)
    return _Graph(graph, inputs, outputs)


def _copies(tensors: Tensors) -> Tensors:
    return tuple(None if x is None else x.clone() for x in tensors)
