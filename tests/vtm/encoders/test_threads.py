"""Threads stay between calls, compute alone, and leave the caller's number of threads as it was."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from vtm.encoders.threads import map_on_threads


@pytest.fixture
def two_threads() -> None:
    torch.set_num_threads(2)


@pytest.mark.usefixtures("two_threads")
def test_threads_serve_one_call_after_the_other_and_compute_alone() -> None:
    def who(_: int) -> tuple[int, int]:
        return threading.get_ident(), torch.get_num_threads()

    first, second = (map_on_threads(who, range(40)) for _ in range(2))
    assert {thread for thread, _ in first + second}.isdisjoint({threading.get_ident()})
    assert len({thread for thread, _ in first + second}) <= 2
    assert {number for _, number in first + second} == {1}
    assert torch.get_num_threads() == 2
    started: list[int] = []
    later = threading.Thread(target=lambda: started.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert started == [2]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_process_has_threads_of_its_own() -> None:
    map_on_threads(str, range(4))
    child = os.fork()
    if child == 0:
        os._exit(0 if map_on_threads(str, range(4)) == list("0123") else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
