"""Reading all clips of a shard file."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pipeline.shards import scan


def test_one_thread_at_a_time_parses_the_header_of_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once may end in a SystemError of CPython 3.11, now and then."""
    stream, busy, load = io.BytesIO(), threading.Lock(), np.load
    np.save(stream, np.arange(18, dtype=np.float16).reshape(9, 2))

    def slow(*arguments: Any, **options: Any) -> Any:
        assert busy.acquire(blocking=False), "two threads at once"
        try:
            time.sleep(0.005)
            return load(*arguments, **options)
        finally:
            busy.release()

    monkeypatch.setattr(scan.np, "load", slow)
    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(scan._npy, [stream.getvalue()] * 12))
    assert all((array == np.arange(18).reshape(9, 2)).all() for array in arrays)
