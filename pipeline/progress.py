"""Steps of the work that a thread is at: what tells a long piece of work from a hanging one."""

from __future__ import annotations

from contextvars import ContextVar


class Steps:
    """A counter that one thread moves and another reads."""

    def __init__(self) -> None:
        self.count = 0


_current: ContextVar[Steps | None] = ContextVar("steps", default=None)


def count_in(steps: Steps) -> None:
    """Steps of this thread are counted here from now on."""
    _current.set(steps)


def made_progress() -> None:
    """One step more: a packet or a piece of a file was read, a batch encoded, or bytes of a shard written."""
    steps = _current.get()
    if steps is not None:
        steps.count += 1
