"""Video sources that misbehave while they are read: `hang://FILE` never answers, `crash://FILE` kills its process.

They behave for the first `GOOD_READS` reads after opening, so that scanning succeeds where a test wants it to.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

DECODING = "VTM_TEST_DECODING"


class _Faulty(LocalFileSystem):
    """Local files, opened by another name, whose reads fail once `trigger` bytes were read in one go of reads."""

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return _FaultyFile(super().open(self._strip_protocol(path), mode), self)

    def fault(self) -> None:
        raise AssertionError("a faulty source names its fault")

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        text = str(path)
        for name in ("hang://", "crash://"):
            text = text.removeprefix(name)
        return text


class _FaultyFile:
    def __init__(self, stream: Any, system: _Faulty) -> None:
        self._stream, self._system = stream, system

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        if b"POISON" in data:
            self._system.fault()
        return data

    def __enter__(self) -> _FaultyFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class HangingSystem(_Faulty):
    protocol = "hang"

    def fault(self) -> None:
        time.sleep(3600)


class CrashingSystem(_Faulty):
    protocol = "crash"

    def fault(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


def register() -> None:
    """Make both known to fsspec in this process."""
    fsspec.register_implementation("hang", HangingSystem, clobber=True)
    fsspec.register_implementation("crash", CrashingSystem, clobber=True)
