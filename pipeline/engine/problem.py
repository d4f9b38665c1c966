"""Errors that a worker survives, as the scheduler hears of them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import DecodeError, EncodeError, FailureClass


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that a worker survived: its class and one line."""

    failure: FailureClass
    message: str


def problem_of(error: BaseException) -> Problem:
    """An error of a call as its class and one line."""
    text = " ".join(str(error).split())
    if isinstance(error, DecodeError):
        return Problem(error.failure, text)
    if isinstance(error, EncodeError):
        return Problem("encode", text)
    if isinstance(error, MemoryError):
        return Problem("out_of_memory", text or "out of memory")
    if isinstance(error, OSError):
        return Problem("io", text)
    return Problem("crash", f"{type(error).__name__}: {text}")
