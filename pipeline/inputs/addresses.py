"""Addresses as they are kept: whole, and in UTF-8; and the record of an input that cannot be had."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from pipeline.errors import FailureClass
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input
from pipeline.plan.spans import split_address

CONTAINERS = """
3gp asf avi divx f4v flv gif h264 h265 hevc ivf m2ts m2v m4v mjpeg mkv mov mp4 mpeg mpg mts mxf ogm ogv qt rm rmvb ts
vob webm wmv y4m
"""
VIDEO_SUFFIXES = frozenset(f".{name}" for name in CONTAINERS.split())


def suffix_of(name: str) -> str:
    """Of a path or an address, in lower case; what follows a question mark is no part of it."""
    return PurePosixPath(name.split("?", 1)[0]).suffix.lower()


def is_video(name: str) -> bool:
    """Whether a folder's file is a video, by its name."""
    return suffix_of(name) in VIDEO_SUFFIXES and not is_shadow(name)


def is_shadow(name: str) -> bool:
    """What macOS leaves beside a file on foreign disks: its attributes, under the video's name."""
    return PurePosixPath(name).name.startswith("._")


def whole_address(text: str) -> str:
    """An address that holds in any working directory."""
    if "://" in text:
        return text
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        # There is no such user; then it is a name like any other.
        path = Path(text)
    return os.path.abspath(path)  # noqa: PTH100 - resolve() follows links


def is_utf8(text: str) -> bool:
    """Whether a name can be stored as text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """A name of any bytes as text that can be stored and shown."""
    try:
        return os.fsencode(text).decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()


def unreadable_input(uri: str, failure: FailureClass, message: str) -> FailedRange:
    """The record of an input whose content, and so whose id, cannot be known: its address is used."""
    uri = printable(uri)
    return FailedRange(
        video_id=Input(uri=uri).unread_id,
        uri=uri,
        start_ns=0,
        end_ns=0,
        failure=failure,
        message=printable(message),
        attempts=1,
        stage="find",
    )


def stamped(uri: str) -> Input:
    """An input with what its file system says of its content; for remote ones nothing is asked."""
    if "://" in uri:
        return Input(uri=uri)
    try:
        status = Path(split_address(uri)[0]).stat()
    except OSError:
        return Input(uri=uri)
    return Input(uri=uri, size_bytes=status.st_size, stamp=f"{status.st_mtime_ns}")
