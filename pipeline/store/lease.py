"""Who drives a run: one driver at a time, known by name, noticed when it is gone. Made of a store's four verbs alone.

Each owner claims the next epoch by an object that only one can create, and writes its heartbeat into it. An owner that
sees a higher epoch has lost the run.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.store.store import Store, TakenError

FOLDER = "lease"
BEAT_S = 5.0
SILENT_S = 30.0
"""A heartbeat that has not changed for so long, by the watcher's own clock, has stopped."""
WATCH_S = 1.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Who drives a run."""

    token: str
    """Random: of this run of this driver alone."""
    host: str
    pid: int
    machine: str
    """The boot and the space of process numbers that `pid` belongs to; containers may share a host's name."""
    started: str
    """When the process began, as the kernel counts: numbers are given again."""
    since_s: float
    """Seconds since 1970."""
    beat_s: float
    """The last heartbeat."""
    is_over: bool = False
    """Whether it ended in order."""

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.since_s))
        return f"process {self.pid} on {self.host} since {since} UTC"

    @property
    def is_known_to_be_gone(self) -> bool:
        """Whether it ran on this machine, and does not any more."""
        if self.machine != _machine() or not self.machine:
            return False
        return _started(self.pid) != self.started


class Lease:
    """A claim on a run, kept alive by a thread."""

    def __init__(self, store: Store, owner: Owner, epoch: int) -> None:
        self._store, self._owner, self._epoch = store, owner, epoch
        self._ends = threading.Event()
        self.lost_to: Owner | None = None
        """Who took the run over, if somebody did."""
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """The run is over for this driver."""
        self._ends.set()
        self._thread.join()
        if self.lost_to is None:
            try:
                self._put(replace(self._owner, is_over=True))
            except OSError:
                # Where nothing can be written, the heartbeat's end tells the next driver.
                return

    def _beat(self) -> None:
        while not self._ends.wait(BEAT_S):
            try:
                newest = newest_owner(self._store)
                if newest is not None and newest[0] > self._epoch:
                    self.lost_to = newest[1]
                    return
                self._put(replace(self._owner, beat_s=time.time()))
            except OSError:
                # A store that cannot be had for a while: the next heartbeat may go through.
                continue

    def _put(self, owner: Owner) -> None:
        self._store.put(_name(self._epoch), json.dumps(asdict(owner)).encode())


@contextmanager
def leased(store: Store, note: Callable[[str], None]) -> Iterator[Lease]:
    """Hold a run; wait for whoever does until they end, or are gone.

    Args:
        store: Where the run lives.
        note: Told who runs, once.

    Raises:
        OSError: the store cannot be read or written.
    """
    lease = _claim(store, note)
    try:
        yield lease
    finally:
        lease.release()


def _claim(store: Store, note: Callable[[str], None]) -> Lease:
    seen: tuple[int, Owner] | None = None
    seen_s = time.monotonic()
    told = ""
    while True:
        newest = newest_owner(store)
        if newest != seen:
            seen, seen_s = newest, time.monotonic()
        if newest is None or _is_gone(newest[1], time.monotonic() - seen_s):
            epoch = 1 if newest is None else newest[0] + 1
            now_s = time.time()
            pid = os.getpid()
            owner = Owner(secrets.token_hex(8), socket.gethostname(), pid, _machine(), _started(pid), now_s, now_s)
            try:
                store.put(_name(epoch), json.dumps(asdict(owner)).encode(), only_if_absent=True)
            except TakenError:
                continue
            for older in range(max(1, epoch - 3), epoch):
                store.delete(_name(older))
            return Lease(store, owner, epoch)
        if newest[1].token != told:
            told = newest[1].token
            note(f"{store.address}: {newest[1]} extracts here already; waiting until it ends")
        time.sleep(WATCH_S)


def _is_gone(owner: Owner, unchanged_s: float) -> bool:
    return owner.is_over or owner.is_known_to_be_gone or unchanged_s > SILENT_S


def newest_owner(store: Store) -> tuple[int, Owner] | None:
    """The last claim and its epoch, as it is now.

    Raises:
        OSError: the store cannot be read.
    """
    for _ in range(3):
        names = [entry.name for entry in store.list(FOLDER)]
        if not names:
            return None
        try:
            text = store.get(names[-1])
        except FileNotFoundError:
            # A later claim has removed it meanwhile.
            continue
        epoch = int(names[-1].rpartition("/")[2].removesuffix(".json"))
        try:
            return epoch, Owner(**json.loads(text))
        except (ValueError, TypeError):
            # Somebody's file. Its epoch is taken, and nobody keeps it alive.
            return epoch, Owner("", "an unreadable record", 0, "", "", 0.0, 0.0, is_over=True)
    return None


def _name(epoch: int) -> str:
    return f"{FOLDER}/{epoch:010d}.json"


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        # Not Linux: only the heartbeat tells.
        return ""


def _started(pid: int) -> str:
    """When a process began; empty where there is none."""
    try:
        # The name of the program, in brackets, may hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
