"""Cells of Parquet files as a file system of fsspec: `parquet://<column>/<row>::<address of the file>`."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from pipeline.inputs.parquet_list import PREFIX, read_cell


class CellFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Holds the cell that was asked for last, as long as it is open.

    Args:
        fo: Where the Parquet file is.
        target_protocol: Of its file system.
        target_options: Of it.
        options: Of fsspec itself.
    """

    protocol = "parquet"
    cachable = False

    def __init__(
        self, fo: str, target_protocol: str | None = None, target_options: dict[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._file = fsspec.filesystem(target_protocol or "file", **target_options or {})
        self._path, self._held = fo, ("", b"")

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Name, size and type of a cell."""
        return {"name": path, "size": len(self._cell(path)), "type": "file"}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Bytes of a cell."""
        return self._cell(path)[start:end]

    def _cell(self, path: str) -> bytes:
        name = str(self._strip_protocol(path))
        if self._held[0] != name:
            with self._file.open(self._path, "rb") as stream:
                self._held = name, read_cell(f"{PREFIX}{name}", stream).getvalue()
        return self._held[1]


def register() -> None:
    """Let fsspec know of these addresses, in this process."""
    fsspec.register_implementation("parquet", CellFileSystem, clobber=True)
