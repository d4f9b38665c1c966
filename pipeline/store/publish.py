"""Files on a disk appear whole or not at all: written under a temporary name, flushed, renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.store.store import TakenError

TEMPORARY_PREFIX = ".tmp-"
OLD_S = 3600.0
"""Nobody writes one file for so long."""


@contextmanager
def publish(path: Path, *, only_if_absent: bool = False) -> Iterator[BinaryIO]:
    """Open a file that takes its name when the block ends without an error; its folder is there.

    Raises:
        TakenError: the name was to be new, and is not.
    """
    # A name that no other process can have: containers share process numbers.
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{path.name}")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if only_if_absent:
            try:
                os.link(temporary, path)
            except FileExistsError as error:
                raise TakenError(f"{path} is there already") from error
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sweep(folder: Path, older_than_s: float = OLD_S) -> None:
    """Remove what a killed run left under temporary names; what is young may be somebody's who is writing it."""
    folders = [os.fspath(folder)]
    while folders:
        with contextlib.suppress(FileNotFoundError), os.scandir(folders.pop()) as items:
            for item in items:
                if item.is_dir(follow_symlinks=False):
                    folders.append(item.path)
                elif item.name.startswith(TEMPORARY_PREFIX):
                    _remove_if_old(item, older_than_s)


def _remove_if_old(item: os.DirEntry[str], older_than_s: float) -> None:
    with contextlib.suppress(FileNotFoundError):
        if time.time() - item.stat(follow_symlinks=False).st_mtime > older_than_s:
            Path(item.path).unlink()
