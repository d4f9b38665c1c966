"""An address to an open container: local paths straight to libavformat, all else by range reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import av.error
from av.container import InputContainer

from pipeline.errors import DecodeError, InputError
from pipeline.video.animated_webp import is_animated_webp, rewritten
from pipeline.video.boxes import keep_movie_box
from pipeline.video.failures import decode_errors
from pipeline.video.numbered import is_numbered, numbered_pictures
from pipeline.video.ranges import RangeFile

BUFFER_BYTES = 64 << 10
"""Of libavformat's own buffer: the file behind it reads ahead."""
FORMATS = frozenset(
    {"3gp", "apng", "asf", "av1", "avi", "dv", "flv", "gif", "h261", "h263", "h264", "hevc", "image2", "ivf", "m4v"}
    | {"matroska", "mjpeg", "mov", "mpeg", "mpegts", "mpegvideo", "mxf", "nut", "obu", "ogg", "rm", "rawvideo"}
    | {"vc1", "vvc", "wtv", "yuv4mpegpipe"}
)
"""What libavformat may open. Playlists and scripts, which name further files, are none of them."""
PLAYLISTS = {b"#EXTM3U": "an HLS playlist", b"ffconcat version": "a concat script", b"<?xml": "an XML manifest"}
OPTIONS: dict[str, Any] = {"metadata_errors": "replace"}
"""Titles in a broken encoding are no reason to fail."""
RESTRICTIONS = {"format_whitelist": ",".join(sorted(FORMATS)), "protocol_whitelist": "file"}


@dataclass(frozen=True, slots=True)
class Opened:
    """An open container, and where its bytes come from where they are far away."""

    container: InputContainer
    file: RangeFile | None = None
    moov: bytes | None = None
    """The tables of a remote mp4 file."""


@contextmanager
def open_container(uri: str) -> Iterator[Opened]:
    """Open `uri` for demuxing.

    Raises:
        DecodeError: the address cannot be read (`io`), or holds nothing that libavformat knows (`corrupt`,
            `unsupported`).
    """
    with decode_errors(uri), _unlisted_formats_named(uri):
        if "://" in uri:
            with RangeFile(uri) as file:
                head = file.peek(64)
                _refuse_by_name(uri, head)
                if is_animated_webp(head):
                    with _animation(cast(BinaryIO, file), uri) as opened:
                        yield opened
                    return
                moov = keep_movie_box(file)
                file.seek(0)
                with av.open(file, buffer_size=BUFFER_BYTES, options=dict(RESTRICTIONS), **OPTIONS) as container:
                    yield Opened(container, file, moov)
            return
        if is_numbered(uri):
            try:
                pictures = numbered_pictures(uri)
            except InputError as error:
                raise DecodeError("io", str(error)) from error
            chosen = {"framerate": str(pictures.rate), "start_number": str(pictures.first)} | RESTRICTIONS
            with av.open(pictures.pattern, format="image2", options=chosen, **OPTIONS) as container:
                yield Opened(container)
            return
        path = Path(uri)
        if not path.is_file():
            raise DecodeError("io", f"{uri}: no such file")
        with path.open("rb") as stream:
            head = stream.read(64)
        if not head:
            raise DecodeError("corrupt", f"{uri}: the file is empty")
        _refuse_by_name(uri, head)
        if is_animated_webp(head):
            with path.open("rb") as stream, _animation(stream, uri) as opened:
                yield opened
            return
        # The prefix keeps libavformat from reading a protocol into a name that holds a colon.
        with av.open(f"file:{path}", options=dict(RESTRICTIONS), **OPTIONS) as container:
            yield Opened(container)


@contextmanager
def _animation(stream: BinaryIO, uri: str) -> Iterator[Opened]:
    with rewritten(stream, uri) as file, av.open(file, options=dict(RESTRICTIONS), **OPTIONS) as container:
        yield Opened(container)


@contextmanager
def _unlisted_formats_named(uri: str) -> Iterator[None]:
    """Say which format it is that may not be opened: libavformat says "Invalid argument", and more in its log alone."""
    try:
        yield
    except av.error.ArgumentError as error:
        log: tuple[int, str, str] = error.log or (0, "", "")  # type: ignore[assignment]
        _, name, text = log
        if not text.startswith("Format not on whitelist"):
            raise
        raise DecodeError("unsupported", f"{uri}: {name} is not read here: convert it to MP4 or Matroska") from error


def _refuse_by_name(uri: str, head: bytes) -> None:
    """A list of segments would have to be read through the same limits as a file, which is not done."""
    for start, name in PLAYLISTS.items():
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(start):
            raise DecodeError("unsupported", f"{uri}: {name} names other files: give those, or one file made of them")
