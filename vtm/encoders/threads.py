"""Frames on several CPU threads, each thread's arithmetic its own.

Kernels that split one product over threads wait for the slowest at every product: with decoding on the same cores, most
of the time. And a result may come to depend on how the work was split. Here a frame is one thread's work from pixels to
tokens, alone or with a few others, so its bytes do not depend on the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TypeVar

import torch

In = TypeVar("In")
Out = TypeVar("Out")


def map_on_threads(function: Callable[[In], Out], items: Sequence[In], num_threads: int | None = None) -> list[Out]:
    """`function` of each item, in order, on `num_threads` (as many as torch may use), each computing on one."""
    before = torch.get_num_threads()
    num_threads = num_threads or before
    if num_threads == 1:
        return [function(item) for item in items]
    try:
        return list(_pool(num_threads).map(partial(_alone, function), items))
    finally:
        # Threads to come start from the number set last, and MKL's is everyone's.
        torch.set_num_threads(before)


def _alone(function: Callable[[In], Out], item: In) -> Out:
    # At each item: MKL's number is everyone's, and whoever called set it back after the call before.
    torch.set_num_threads(1)
    return function(item)


@lru_cache(maxsize=4)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Threads that stay for the next call."""
    return ThreadPoolExecutor(num_threads)


# Threads do not follow a process into its fork.
os.register_at_fork(after_in_child=_pool.cache_clear)


@contextmanager
def computing_alone() -> Iterator[int]:
    """This thread's own arithmetic on itself; yields how many threads torch may use, for `map_on_threads`."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield num_threads
    finally:
        torch.set_num_threads(num_threads)
