"""Where an export is written, how its files are named, and what is told of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

from pipeline.cache.token_cache import TokenCache
from pipeline.errors import SettingsError
from pipeline.store.publish import publish

NameBy = Literal["id", "file"]
"""Files are named by the video's id, or by the name of its file without the suffix."""
MOST_NAME_LENGTH = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What a format may be told; each takes some of it."""

    step_s: float | None = None
    """Seconds from row to row of a uniform time grid."""
    spread: bool = False
    """Whether each source patch gets a row, the token that represents it."""
    name_by: NameBy = "id"
    collection: str = "clips"
    """Of a vector store."""
    url: str | None = None
    """Of a server to write to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export has written."""

    format: str
    items: int
    """Files, rows or points, as the format counts."""
    rows: int
    """Vectors in all of them."""
    notes: tuple[str, ...] = ()
    """What a reader must know, a line each."""


def open_folder(out: Path) -> Path:
    """A folder of its own for an export.

    Raises:
        SettingsError: something lies there.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(f"--out {out} is not empty: name a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)
    return out


def safe_name(text: str) -> str:
    """A file name that cannot leave its folder: letters, digits, dot, dash and underscore, never a dot first."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", text)[:MOST_NAME_LENGTH]
    return name if name and not name.startswith(".") else f"_{name}"


def video_names(cache: TokenCache, name_by: NameBy) -> dict[str, str]:
    """The name of each video's files, by video id.

    Raises:
        SettingsError: two videos would have the same.
    """
    if name_by == "id":
        return {video_id: safe_name(video_id) for video_id in cache.videos}
    names: dict[str, str] = {}
    held: dict[str, str] = {}
    for video_id, view in cache.videos.items():
        (clip,) = cache.read(view.positions[:1], ())
        name = safe_name(PurePosixPath(clip.uri.replace("\\", "/")).stem)
        if name in held:
            raise SettingsError(f"{clip.uri} and {held[name]} would both be named {name}: use --name-by id")
        names[video_id], held[name] = name, clip.uri
    return names


@contextmanager
def new_file(folder: Path, name: str) -> Iterator[BinaryIO]:
    """A file that appears whole, or not at all."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as stream:
        yield stream


def write_index(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """index.jsonl: what each file holds, an object a line."""
    with new_file(folder, "index.jsonl") as stream:
        for row in rows:
            stream.write(json.dumps(row, sort_keys=True).encode() + b"\n")


def write_about(folder: Path, cache: TokenCache, exported: Exported) -> None:
    """export.json, written last: what was exported of which run, at which budget."""
    about = {
        "exported": asdict(exported),
        "run": str(cache.path),
        "fingerprint": cache.run["fingerprint"],
        "encoder": cache.run["encoder"].get("name"),
        "budget": None if cache.cut is None else cache.cut.asked(),
    }
    with new_file(folder, "export.json") as stream:
        stream.write(json.dumps(about, indent=1, sort_keys=True).encode())
