"""Clips that the encoder cannot take, for tests of what they cost: the name of a video says what its third clip does.

`encoder-raises.mp4` makes the encoder fail, `encoder-dies.mp4` kills its process, `encoder-hangs.mp4` never ends, and
`encoder-breaks.mp4` breaks the device of the first process that has it.
Only worker processes are faulty.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

POISONED_CLIP = 2


def install() -> None:
    """Make this process's encoder faulty."""
    from pipeline.encode.clip_encoder import ClipEncoder

    finish = ClipEncoder.finish

    def faulty(self: ClipEncoder, launched: Any, uri: str) -> Any:
        if launched.clip.spec.index == POISONED_CLIP:
            _misbehave(Path(uri))
        return finish(self, launched, uri)

    ClipEncoder.finish = faulty  # type: ignore[method-assign]


def _misbehave(video: Path) -> None:
    what = video.stem
    if what == "encoder-raises":
        from pipeline.errors import EncodeError

        raise EncodeError("this clip cannot be encoded")
    if what == "encoder-dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "encoder-hangs":
        time.sleep(3600)
    if what == "encoder-breaks" and not video.with_suffix(".broke").exists():
        video.with_suffix(".broke").touch()
        _break_device()


def _break_device() -> None:
    """As a sticky error of CUDA does: this call fails, and the device never answers again."""
    from pipeline.encode import devices
    from pipeline.errors import EncodeError

    def lost(kind: str) -> None:
        raise devices.BrokenDeviceError("an illegal memory access was encountered")

    devices.require_device = lost  # type: ignore[assignment]
    raise EncodeError("an illegal memory access was encountered")


def install_when_imported() -> None:
    """Make the encoder faulty as soon as a worker loads it; decoders never do."""
    import importlib.abc
    import importlib.machinery
    import sys

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
            if name != "pipeline.encode.clip_encoder":
                return None
            sys.meta_path.remove(self)
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            assert spec is not None
            assert spec.loader is not None
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                install()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
            return spec

    sys.meta_path.insert(0, Finder())
