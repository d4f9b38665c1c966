"""An address to an open container: local paths straight to libavformat, everything else as a seekable file object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import fsspec
from av.container import InputContainer

from pipeline.decode.failures import decode_errors
from pipeline.errors import DecodeError

BUFFER_BYTES = 1 << 20


@contextmanager
def open_container(uri: str) -> Iterator[InputContainer]:
    """Open `uri` for demuxing.

    Raises:
        DecodeError: the address cannot be read (`io`), or holds nothing that libavformat knows (`corrupt`,
        `unsupported`).
    """
    with decode_errors(uri):
        if "://" in uri:
            with fsspec.open(uri, "rb") as file, av.open(file, buffer_size=BUFFER_BYTES) as container:
                yield container
            return
        path = Path(uri)
        if not path.is_file():
            raise DecodeError("io", f"{uri}: no such file")
        if path.stat().st_size == 0:
            raise DecodeError("corrupt", f"{uri}: the file is empty")
        # The prefix keeps libavformat from reading a protocol into a name that holds a colon.
        with av.open(f"file:{path}") as container:
            yield container
