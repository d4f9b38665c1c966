"""A benchmark's row in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

Request = TypeVar("Request")


def in_own_process(measure: Callable[[Request], dict[str, Any]], request: Request) -> dict[str, Any]:
    """Measure a row in a fresh process: peak memory is a process's, and one row's freed pages are not another's.

    Args:
        measure: a function of a module, which the process imports.
        request: what it measures; pickled.

    Returns:
        The row.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, request).result()
