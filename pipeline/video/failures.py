"""Exceptions of the video library and of the operating system to `DecodeError`: mapped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av.error

from pipeline.errors import DecodeError, FailureClass

UNSUPPORTED = (
    av.error.DecoderNotFoundError,
    av.error.DemuxerNotFoundError,
    av.error.PatchWelcomeError,
    av.error.NotImplementedError,
    av.error.ExperimentalError,
)


def failure_class(error: BaseException) -> FailureClass:
    """The class of failure that an exception is of."""
    if isinstance(error, MemoryError):
        return "out_of_memory"
    if isinstance(error, UNSUPPORTED):
        return "unsupported"
    # Reading an object fails with OSError; what libav says of the data itself is none of these.
    if isinstance(error, OSError) and not isinstance(error, av.error.EOFError):
        return "io"
    return "corrupt"


@contextmanager
def decode_errors(uri: str) -> Iterator[None]:
    """Turn whatever opening, reading or decoding `uri` raises into one line of `DecodeError`."""
    try:
        yield
    except (av.error.FFmpegError, OSError, MemoryError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DecodeError(failure_class(error), f"{uri}: {reason}") from error
