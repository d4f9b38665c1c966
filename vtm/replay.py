"""A function of fixed shapes as one CUDA graph: what would be thousands of launches is one.

A graph runs the kernels that the function launches, in the same order, so that its results are the same bits. Elsewhere
than on a GPU the function is called.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_GRAPHS = 2
"""Held at a time, each with the memory of its function: a whole clip, and one of another length."""

Shapes = tuple[tuple[torch.Size, torch.dtype, torch.device], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __call__(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for mine, given in zip(self.inputs, tensors, strict=True):
            mine.copy_(given)
        self.graph.replay()
        # The next replay overwrites the outputs.
        return tuple(output.clone() for output in self.outputs)


class Replayed:
    """Calls a function, and from the second call with the same shapes on a GPU replays its CUDA graph.

    Args:
        function: takes tensors, returns tensors; no shape, and nothing that the host does, depends on a value.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self._function = function
        self._graphs: OrderedDict[Shapes, _Graph | None] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """What the function returns."""
        if tensors[0].device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return self._function(*tensors)
        with self._lock:
            shapes: Shapes = tuple((x.shape, x.dtype, x.device) for x in tensors)
            seen, graph = shapes in self._graphs, self._graphs.get(shapes)
            if seen and graph is None:
                graph = _captured(self._function, tensors)
            self._graphs[shapes] = graph
            self._graphs.move_to_end(shapes)
            while len(self._graphs) > MOST_GRAPHS:
                self._graphs.popitem(last=False)
            return self._function(*tensors) if graph is None else graph(tensors)


def _captured(function: Callable[..., tuple[Tensor, ...]], tensors: tuple[Tensor, ...]) -> _Graph:
    """The function as a graph. It has run before, so that libraries have their handles and workspaces."""
    inputs = tuple(x.clone() for x in tensors)
    graph = torch.cuda.CUDAGraph()
    # Other threads may copy to and from the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function(*inputs)
    return _Graph(graph, inputs, outputs)
