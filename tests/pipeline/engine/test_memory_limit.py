"""What a decode worker may allocate after it has started."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("ray")
SCRIPT = """
import numpy as np
from pipeline.engine.ray_actors import limit_memory

held = np.ones(300 << 20, dtype=np.uint8)
limit_memory(400)
small = np.ones(200 << 20, dtype=np.uint8)
del small
try:
    np.ones(500 << 20, dtype=np.uint8)
except MemoryError:
    print("refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux bounds private memory")
def test_what_it_holds_at_the_start_does_not_count_and_more_than_the_limit_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["refused"]
