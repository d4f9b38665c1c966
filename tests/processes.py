"""Processes of tests: all that one started, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any


def descendants(pid: int) -> list[int]:
    """A process and all it started, directly or not."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended while we looked
        parents[int(path.parent.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found


def kill_all(process: subprocess.Popen[Any]) -> None:
    """SIGKILL for a process and all it started."""
    for pid in descendants(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # a child may go with its parent
    process.communicate()  # which closes its pipes too
