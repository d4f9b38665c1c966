"""Video sources that misbehave while they are read, for tests of what a lost decoder costs.

`hang://FILE` never answers and `crash://FILE` kills its process as soon as the bytes read hold the word POISON.
`hang-later://` and `crash-later://` behave while the file is scanned.
Only worker processes are faulty: the process that runs the tests reads everything well. `slow://` takes its time
for each read in any process.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

POISON = b"POISON"
PROTOCOLS = ("hang", "crash", "hang-later", "crash-later")
SLOW_READ_S = 0.04


class FaultySystem(LocalFileSystem):
    """Local files under another protocol."""

    is_worker = False
    slow_reads = 0
    """Of this process."""

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        plain = self._strip_protocol(path)
        return _FaultyFile(super().open(plain, mode), str(self.protocol))

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return str(path).split("://", 1)[-1]


class _FaultyFile:
    def __init__(self, stream: Any, protocol: str) -> None:
        self._stream, self._protocol = stream, protocol

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        if self._protocol == "slow":
            FaultySystem.slow_reads += 1
            time.sleep(SLOW_READ_S)
        if FaultySystem.is_worker and POISON in data and not ("later" in self._protocol and _is_scanning()):
            if self._protocol.startswith("crash"):
                os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(3600)
        return data

    def __enter__(self) -> _FaultyFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_scanning() -> bool:
    # Of any thread: what is read ahead is read by another than the one that scans.
    stacks = [traceback.walk_stack(frame) for frame in sys._current_frames().values()]
    return any(frame.f_code.co_name == "scan_video" for stack in stacks for frame, _ in stack)


def register() -> None:
    """Make all of them known to fsspec in this process."""
    for name in (*PROTOCOLS, "slow"):
        system = type(f"Faulty_{name}", (FaultySystem,), {"protocol": name})
        fsspec.register_implementation(name, system, clobber=True)


def register_in_worker() -> None:
    """Known, and faulty: what Ray calls when it starts a worker process."""
    from tests.faulty_encoder import install_when_imported

    FaultySystem.is_worker = True
    register()
    install_when_imported()
