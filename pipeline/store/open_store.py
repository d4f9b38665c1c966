"""An address to its store."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from pipeline.errors import RunFolderError
from pipeline.store.disk import DiskStore
from pipeline.store.objects import ObjectStore
from pipeline.store.store import Store

Where: TypeAlias = str | Path | Store
"""A folder, `s3://bucket/prefix` or the like, or an open store."""


def open_store(where: Where) -> Store:
    """The store of an address; nothing is read or made.

    Raises:
        RunFolderError: no file system for such addresses is installed.
    """
    if not isinstance(where, str | Path):
        return where
    text = str(where)
    if text.startswith("file://"):
        return DiskStore(Path(text.removeprefix("file://")))
    if "://" not in text:
        return DiskStore(Path(text).expanduser().absolute())
    try:
        return ObjectStore(text.rstrip("/")).connected()
    except (ImportError, ValueError) as error:
        raise RunFolderError(f"{text}: no file system for such an address: {error}") from error
